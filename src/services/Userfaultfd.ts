/**
 * The two faces of a userfaultfd. The guest's process opens it and registers the guest's memory (`register`); the umem
 * daemon serves it (`serve`), and must never touch that memory itself. Results of the serving calls are signed, as the
 * kernel's are, because most "errors" there are ordinary outcomes.
 *
 * Hot path: no Effect per page.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Descriptor, Region, SystemError } from "userfaultfd-napi"
import type { LoadedBlock } from "../guests/Vcpu.ts"
import { Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"

/** Numbers an event takes in the ring: event, and three operands (see `readEvents` of the addon). */
export const EVENT_WORDS = 4
/** Events read in one call. */
const RING_EVENTS = 256
export const Event = { PageFault: 0x12, Fork: 0x13, Remap: 0x14, Remove: 0x15, Unmap: 0x16 } as const
/** PAGEFAULT flag: the page is in the memfd and only the mapping is missing. */
export const FLAG_MINOR = 4

/** The serving side: events in, pages out. Addresses are of the guest's process; lengths are bytes. */
export interface FaultChannel {
  /** Where `drain` and bursts leave events. */
  readonly ring: Float64Array
  /** Calls back with the number of events in `ring`, or -errno, whenever some are pending. */
  readonly attach: (onBurst: (count: number) => void) => void
  /** Reads what is pending now into `ring`: a number of events, 0 when there is none, or -errno. */
  readonly drain: () => number
  readonly copy: (address: number, source: Uint8Array, offset: number, length: number) => number
  readonly zeropage: (address: number, length: number) => number
  readonly continueRange: (address: number, length: number) => number
  readonly wake: (address: number, length: number) => number
  readonly close: () => void
}

/** A block whose pages are all missing and wait for a daemon. */
export interface RegisteredBlock {
  readonly idstr: string
  readonly length: number
  /** In the guest's process. */
  readonly address: number
}

/** The registering side, kept by the guest's process for as long as a page is missing. */
export interface Registration {
  readonly blocks: ReadonlyArray<RegisteredBlock>
  /** Bytes of a host page. */
  readonly hostPageSize: number
  /** What the daemon gets; a duplicate, so that either side's death leaves the other's. */
  readonly descriptor: Descriptor | undefined
  /**
   * Ends the registration. With `complete` every page is there: unregisters and closes. Without, the memory still has
   * holes: the descriptor is given up *open*, since closing it would show the guest zeros.
   */
  readonly release: (complete: boolean) => void
}

export interface UserfaultfdShape {
  /** Whether this host can receive at all; fails with what is missing and the command that grants it. */
  readonly available: Effect.Effect<void, Unsupported>
  /** Drops the pages of the blocks and registers them. Nothing may run in them until a daemon serves. */
  readonly register: (
    blocks: ReadonlyArray<LoadedBlock>,
    guestStopped: () => boolean
  ) => Effect.Effect<Registration, Unsupported, Scope.Scope>
}

const remedy = "run as root, or allow it: chmod a+rw /dev/userfaultfd, or sysctl -w vm.unprivileged_userfaultfd=1"

const native: UserfaultfdShape = {
  available: Effect.gen(function*() {
    const addon = Binding.load()
    if (addon === undefined) {
      return yield* new Unsupported({ detail: `receiving needs the addon: ${Binding.failure()}` })
    }
    const { device, syscall, userModeOnly } = addon.probe()
    if (!device.available && !syscall.available && !userModeOnly.available) {
      const why = addon.errnoName(syscall.errno)
      return yield* new Unsupported({
        detail: `this host has no userfaultfd for this user (${why}): ${
          why === "ENOSYS" ? "a kernel with CONFIG_USERFAULTFD is needed" : remedy
        }`
      })
    }
  }),
  register: Effect.fnUntraced(function*(blocks, guestStopped) {
    const addon = Binding.load()
    if (addon === undefined) return yield* new Unsupported({ detail: Binding.failure() })
    const { constants } = addon
    const failed = (what: string) => (cause: unknown) =>
      new Unsupported({ detail: `${what}: ${(cause as SystemError).message}; ${remedy}` })
    const options = { required: constants.FEATURE_EVENT_REMOVE, optional: constants.FEATURE_THREAD_ID }
    const { descriptor } = yield* Effect.try({
      try: () => addon.open(options),
      catch: failed("cannot open a userfaultfd")
    }).pipe(
      // Faults of system calls on guest memory need a privilege; those of the guest's own code do not.
      Effect.catch((first) =>
        Effect.mapError(
          Effect.try({
            try: () => addon.open({ ...options, userModeOnly: true }),
            catch: failed("cannot open a userfaultfd")
          }),
          () => first
        )
      )
    )
    const regions: Array<Region> = []
    const registered: Array<RegisteredBlock> = []
    let released = false
    const release = (complete: boolean) => {
      if (released) return
      released = true
      if (!complete && registered.length > 0 && !guestStopped()) {
        // SAFETY: a thread may wait in these ranges, or touch them later; with the last descriptor closed it would go
        // on with zeros. The number stays open until the process ends, and the regions stay mapped with it.
        descriptor.release()
        for (const region of regions) parked.push(region)
        return
      }
      for (const { address, length } of registered) addon.unregister(descriptor, address, length)
      descriptor.close()
      for (const region of regions) region.close()
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => release(false)))
    for (const block of blocks) {
      yield* Effect.try({
        try: () => {
          if (block.memory._tag !== "Region") throw new Error(`block ${block.idstr} is not mapped by the addon`)
          const region = addon.Region.adopt(block.memory.token)
          regions.push(region)
          const dropped = region.madvise(0, block.length, constants.MADV_DONTNEED)
          if (dropped < 0) throw new Error(`madvise: ${addon.errnoName(-dropped)}`)
          addon.register(descriptor, region.address, block.length, constants.MODE_MISSING)
          registered.push({ idstr: block.idstr, length: block.length, address: region.address })
        },
        catch: failed(`cannot register block ${block.idstr}`)
      })
    }
    return { blocks: registered, hostPageSize: addon.pageSize, descriptor, release }
  })
}

/** Regions of guests that wait for ever: they must outlive every handle. */
const parked: Array<Region> = []

/** Serves a userfaultfd that this process was given. */
export const serve = (addon: Binding.Addon, descriptor: Descriptor): FaultChannel => {
  const ring = new Float64Array(RING_EVENTS * EVENT_WORDS)
  const poller = new addon.FaultPoller(descriptor, ring)
  return {
    ring,
    attach: (onBurst) => poller.start(onBurst),
    drain: () => addon.readEvents(descriptor, ring),
    copy: (address, source, offset, length) => addon.copy(descriptor, address, source, offset, length, 0),
    zeropage: (address, length) => addon.zeropage(descriptor, address, length, 0),
    continueRange: (address, length) => addon.continueRange(descriptor, address, length, 0),
    wake: (address, length) => addon.wake(descriptor, address, length),
    close: () => {
      poller.close()
      descriptor.close()
    }
  }
}

export const Userfaultfd: Context.Reference<UserfaultfdShape> = Context.Reference("postcopy/services/Userfaultfd", {
  defaultValue: () => native
})
