/**
 * What a rehearsal plays on: a guest of a few pages, the links between the actors, and faults on demand. Over doubles, as
 * everything runs under a test's clock; or over the kernel, so that the addon's calls have been made once as well. There
 * a userfaultfd over a small region is served and nobody waits in it: its faults are made up.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Addon } from "./native/Binding.ts"
import * as BusyPoll from "./services/BusyPoll.ts"
import { fromBytes, GuestMemory, type SourceBlock } from "./services/GuestMemory.ts"
import type { Link } from "./services/Link.ts"
import * as LinkMemory from "./services/LinkMemory.ts"
import * as NativeLink from "./services/NativeLink.ts"
import { Event, type FaultChannel, type RegisteredBlock, serve, Userfaultfd } from "./services/Userfaultfd.ts"
import * as UserfaultfdMemory from "./services/UserfaultfdMemory.ts"

export const PAGE = 4096
/** Enough that the hot functions have run a few hundred times, few enough to take some ten milliseconds. */
export const PAGES = 256

const ENOSYS = -38

export interface Stage {
  /** Pages of the guest. */
  readonly pages: number
  readonly block: SourceBlock
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly uffd: FaultChannel
  readonly source: Link
  readonly destination: Link
  readonly guestEnd: Link
  readonly daemonEnd: Link
  readonly busyPoll: BusyPoll.BusyPoll | undefined
  /** Touches a page as the guest would; completes when it is there. */
  readonly touch: (page: number) => Effect.Effect<void>
}

/** Every other page is uniform: both kinds of record are sent and installed. */
const fill = (bytes: Uint8Array) => {
  for (let at = 0; at < bytes.length; at += 2 * PAGE) bytes[at] = 1
}

export const doubles: Effect.Effect<Stage, never, Scope.Scope> = Effect.gen(function*() {
  const bytes = new Uint8Array(PAGES * PAGE)
  fill(bytes)
  const block = fromBytes("rehearsal", bytes)
  const memory = yield* UserfaultfdMemory.make({ blocks: [block] })
  const [source, destination] = yield* LinkMemory.pair()
  const [guestEnd, daemonEnd] = yield* LinkMemory.pair()
  return {
    pages: PAGES,
    block,
    blocks: memory.blocks,
    uffd: memory.channel,
    source,
    destination,
    guestEnd,
    daemonEnd,
    busyPoll: undefined,
    touch: (page) => Effect.asVoid(memory.read("rehearsal", page))
  }
})

/** A userfaultfd whose faults are made up, with a way to make one. */
const prompted = (real: FaultChannel, base: number) => {
  const attached = Deferred.makeUnsafe<(count: number) => void>()
  let waiting: (() => void) | undefined
  let quick = false
  const installed = <A>(result: A): A => {
    // Not from within the installation: a guest's thread goes on beside it.
    if (waiting !== undefined) setImmediate(waiting)
    waiting = undefined
    return result
  }
  const uffd: FaultChannel = {
    ...real,
    attach: (onBurst) => {
      real.attach(onBurst)
      Deferred.doneUnsafe(attached, Effect.succeed(onBurst))
    },
    copyRun: (...run) => installed(real.copyRun(...run)),
    zeropage: (address, length) => installed(real.zeropage(address, length)),
    fetch: (link, plan, ...bytes) => {
      if (!quick) return ENOSYS
      const logged = real.fetch?.(link, plan, ...bytes) ?? ENOSYS
      return logged > 0 ? installed(logged) : logged
    }
  }
  const touch = (page: number) =>
    Effect.flatMap(Deferred.await(attached), (onBurst) =>
      Effect.callback<void>((resume) => {
        waiting = () => resume(Effect.void)
        // Pages of both kinds by either way.
        quick = (page & 2) !== 0
        real.ring.set([Event.PageFault, 0, base + page * PAGE, 0])
        onBurst(1)
      }))
  return { uffd, touch }
}

/** Fails where there is no userfaultfd for this user. */
export const kernel = (addon: Addon, pages = PAGES) =>
  Effect.gen(function*() {
    const links = yield* Effect.acquireRelease(
      Effect.sync(() =>
        [0, 1].flatMap(() => addon.socketpair(addon.constants.SOCK_STREAM)).map((descriptor) =>
          NativeLink.fromDescriptor(addon, descriptor, "the rehearsal")
        )
      ),
      (all) => Effect.sync(() => all.forEach((link) => link.close()))
    )
    const region = () =>
      Effect.acquireRelease(
        Effect.sync(() => addon.Region.anonymous(pages * PAGE)),
        (mapped) => Effect.sync(() => mapped.close())
      )
    const from = yield* region()
    fill(new Uint8Array(from.buffer()))
    const to = yield* region()
    const loaded = (token: bigint) => ({
      idstr: "rehearsal",
      length: pages * PAGE,
      maximum: pages * PAGE,
      hostPageSize: PAGE,
      memory: { _tag: "Region", token, backing: "anonymous" } as const
    })
    const [block] = yield* (yield* GuestMemory).open([loaded(from.share())])
    const { blocks, descriptor } = yield* (yield* Userfaultfd).register([loaded(to.share())], () => true)
    const served = yield* Effect.acquireRelease(
      Effect.sync(() => serve(addon, descriptor!.dup(), blocks, [])),
      (channel) => Effect.sync(() => channel.close())
    )
    const [source, destination, guestEnd, daemonEnd] = links
    const { touch, uffd } = prompted(served, blocks[0]!.address)
    return {
      pages,
      block: block!,
      blocks,
      uffd,
      source: source!,
      destination: destination!,
      guestEnd: guestEnd!,
      daemonEnd: daemonEnd!,
      busyPoll: BusyPoll.make(addon, BusyPoll.DEFAULT_MICROS, descriptor!, destination!.descriptor!),
      touch
    } satisfies Stage
  })
