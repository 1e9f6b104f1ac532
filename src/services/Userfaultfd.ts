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
import { type Link, plainDescriptor } from "./Link.ts"

/** Numbers an event takes in the ring: event, and three operands (see `readEvents` of the addon). */
export const EVENT_WORDS = 4
/** Events read in one call. */
const RING_EVENTS = 256
/** Pages described to the addon in one call of `copyRun`. */
const RUN_PAGES = 64
export const Event = { PageFault: 0x12, Fork: 0x13, Remap: 0x14, Remove: 0x15, Unmap: 0x16 } as const
/** PAGEFAULT flag: the page is in the memfd and only the mapping is missing. */
export const FLAG_MINOR = 4

/**
 * The daemon's own view of a block's memfd. What is written here is invisible to the guest until the page is mapped by
 * `continueRange`; the guest's own mapping is never touched. Offsets and lengths are bytes within the block.
 */
export interface StagedMemory {
  readonly write: (offset: number, from: Uint8Array, at: number, length: number) => void
  readonly clear: (offset: number, length: number) => void
}

/** The serving side: events in, pages out. Addresses are of the guest's process; lengths are bytes. */
export interface FaultChannel {
  /** Where `drain` and bursts leave events. */
  readonly ring: Float64Array
  /**
   * Calls back with the number of events in `ring`, or -errno, whenever some are pending. `quick`, where given, is called
   * first, before anything is read; true: it has read what there was.
   */
  readonly attach: (onBurst: (count: number) => void, quick?: () => boolean) => void
  /**
   * Asks for pages and installs the answers, see {@link PageExchange.Fetch}: entries of the log, or -errno. Events that are
   * not for it are in `ring`.
   */
  readonly fetch?: (
    link: Link,
    plan: Float64Array,
    requested: Uint8Array,
    received: Uint8Array,
    buffer: Uint8Array
  ) => number
  /** Reads what is pending now into `ring`: a number of events, 0 when there is none, or -errno. */
  readonly drain: () => number
  readonly copy: (address: number, source: Uint8Array, offset: number, length: number) => number
  /**
   * Installs neighbouring pages whose bytes lie `stride` apart in `source` from `offset` on: in as few calls of the kernel
   * as possible. How many of them, from the first, are in place; fewer when the kernel put off or refused the next one.
   */
  readonly copyRun: (
    address: number,
    source: Uint8Array,
    offset: number,
    stride: number,
    pageSize: number,
    pages: number
  ) => number
  readonly zeropage: (address: number, length: number) => number
  readonly continueRange: (address: number, length: number) => number
  readonly wake: (address: number, length: number) => number
  /** Ends the registration of a range in which nothing is missing: its memory is ordinary memory from then on. */
  readonly unregister: (address: number, length: number) => void
  /** The view of a block of mode "continue", by its idstr. */
  readonly staged: (idstr: string) => StagedMemory
  readonly close: () => void
}

/** A block whose pages are all missing and wait for a daemon. */
export interface RegisteredBlock {
  readonly idstr: string
  readonly length: number
  /** In the guest's process. */
  readonly address: number
  /** Bytes of a page of this block on this host. */
  readonly hostPageSize: number
  /**
   * How a page gets there. `copy`: anonymous memory, UFFDIO_COPY. `continue`: a memfd, filled through a view of the
   * daemon's own and mapped by UFFDIO_CONTINUE.
   */
  readonly mode: "copy" | "continue"
}

/** The registering side, kept by the guest's process for as long as a page is missing. */
export interface Registration {
  readonly blocks: ReadonlyArray<RegisteredBlock>
  /** What the daemon gets; a duplicate, so that either side's death leaves the other's. */
  readonly descriptor: Descriptor | undefined
  /** The memfds behind the blocks of mode "continue", in the order of `blocks`. */
  readonly memfds: ReadonlyArray<Descriptor>
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

const ENOSYS = -38
/** Memfds that one message to the daemon carries beside its other descriptors (SCM_MAX_FD is 253). */
const MAX_MEMFDS = 240

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
    const options = { required: featuresFor(blocks, addon), optional: constants.FEATURE_THREAD_ID }
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
    const memfds: Array<Descriptor> = []
    let released = false
    const release = (complete: boolean) => {
      if (released) return
      released = true
      for (const memfd of memfds) memfd.close()
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
          const { hostPageSize, idstr, length, memory } = block
          if (memory._tag !== "Region") throw new Error(`block ${idstr} is not mapped by the addon`)
          const region = addon.Region.adopt(memory.token)
          regions.push(region)
          const shared = memory.backing === "memfd"
          const dropped = region.madvise(0, length, shared ? constants.MADV_REMOVE : constants.MADV_DONTNEED)
          if (dropped < 0) throw new Error(`madvise: ${addon.errnoName(-dropped)}`)
          if (shared) {
            const memfd = region.descriptor()
            if (memfd === null || memfds.length === MAX_MEMFDS) {
              throw new Error(`at most ${MAX_MEMFDS} memfds are possible`)
            }
            memfds.push(memfd)
          }
          const mode = shared ? constants.MODE_MISSING | constants.MODE_MINOR : constants.MODE_MISSING
          addon.register(descriptor, region.address, length, mode)
          registered.push({ idstr, length, address: region.address, hostPageSize, mode: shared ? "continue" : "copy" })
        },
        catch: failed(`cannot register block ${block.idstr}`)
      })
    }
    return { blocks: registered, descriptor, memfds, release }
  })
}

/** What the kernel must offer for these blocks. */
const featuresFor = (blocks: ReadonlyArray<LoadedBlock>, { constants, pageSize }: Binding.Addon): number => {
  let features: number = constants.FEATURE_EVENT_REMOVE
  for (const { hostPageSize, memory } of blocks) {
    if (memory._tag !== "Region" || memory.backing !== "memfd") continue
    features |= hostPageSize > pageSize
      ? constants.FEATURE_MISSING_HUGETLBFS | constants.FEATURE_MINOR_HUGETLBFS
      : constants.FEATURE_MISSING_SHMEM | constants.FEATURE_MINOR_SHMEM
  }
  return features
}

/** Regions of guests that wait for ever: they must outlive every handle. */
const parked: Array<Region> = []

/** Serves a userfaultfd that this process was given, and the memfds behind its blocks of mode "continue". */
export const serve = (
  addon: Binding.Addon,
  descriptor: Descriptor,
  blocks: ReadonlyArray<RegisteredBlock>,
  memfds: ReadonlyArray<Descriptor>
): FaultChannel => {
  const ring = new Float64Array(RING_EVENTS * EVENT_WORDS)
  // Of kind INSTALL_COPY, which is 0.
  const run = new Float64Array(RUN_PAGES * addon.VECTOR_WORDS)
  const poller = new addon.Poller(descriptor)
  const views = new Map<string, { readonly region: Region; readonly staged: StagedMemory }>()
  for (const { idstr, length, mode } of blocks) {
    if (mode === "continue") views.set(idstr, view(addon, memfds[views.size]!, length))
  }
  return {
    ring,
    attach: (onBurst, quick) =>
      poller.watch(addon.constants.READABLE, (status) => {
        if (status >= 0 && quick?.() === true) return
        const n = status < 0 ? status : addon.readEvents(descriptor, ring)
        // An error would come again at once, for ever.
        if (n < 0) poller.pause()
        if (n !== 0) onBurst(n)
      }),
    drain: () => addon.readEvents(descriptor, ring),
    fetch: (link, plan, requested, received, buffer) => {
      const socket = plainDescriptor(link)
      return socket === undefined
        ? ENOSYS
        : addon.fetchPages(descriptor, socket, plan, requested, received, buffer, ring)
    },
    copy: (address, source, offset, length) => addon.copy(descriptor, address, source, offset, length, 0),
    copyRun: (address, source, offset, stride, pageSize, pages) => {
      if (pages === 1) return addon.copy(descriptor, address, source, offset, pageSize, 0) === pageSize ? 1 : 0
      let done = 0
      while (done < pages) {
        const some = Math.min(pages - done, RUN_PAGES)
        for (let i = 0, at = 0; i < some; i++, at += addon.VECTOR_WORDS) {
          run[at] = address + (done + i) * pageSize
          run[at + 1] = offset + (done + i) * stride
          run[at + 2] = pageSize
          run[at + 4] = 0
        }
        const n = addon.installPages(descriptor, run, 0, some, source, pageSize)
        if (n > 0) done += n
        if (n < some) break
      }
      return done
    },
    zeropage: (address, length) => addon.zeropage(descriptor, address, length, 0),
    continueRange: (address, length) => addon.continueRange(descriptor, address, length, 0),
    wake: (address, length) => addon.wake(descriptor, address, length),
    unregister: (address, length) => {
      try {
        addon.unregister(descriptor, address, length)
      } catch {
        // The guest's process may be gone; and what stays registered with nothing missing costs time, not memory.
      }
    },
    staged: (idstr) => views.get(idstr)!.staged,
    close: () => {
      poller.close()
      descriptor.close()
      for (const { region } of views.values()) region.close()
    }
  }
}

/** Maps a memfd a second time. SAFETY: this mapping is not registered, so that no touch of it waits for a page. */
const view = (addon: Binding.Addon, memfd: Descriptor, length: number) => {
  const region = addon.Region.map(memfd, 0, length)
  memfd.close()
  const bytes = new Uint8Array(region.buffer())
  const staged: StagedMemory = {
    write: (offset, from, at, n) => bytes.set(from.subarray(at, at + n), offset),
    clear: (offset, n) => {
      bytes.fill(0, offset, offset + n)
    }
  }
  return { region, staged }
}

export const Userfaultfd: Context.Reference<UserfaultfdShape> = Context.Reference("postcopy/services/Userfaultfd", {
  defaultValue: () => native
})
