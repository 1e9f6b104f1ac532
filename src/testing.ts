/**
 * A whole migration without kernel, threads or processes, as `postcopy/testing`: for tests of programs that migrate
 * guests. Both sides run in the test's own process on the ambient clock; under `TestClock` time passes only when the test
 * says so. The protocol, the actors and every state machine are the real ones.
 *
 * The guest has memory and nothing else. `{read: page}` is answered with the first byte of a page of its first block, at
 * the destination after a page fault where the page is missing; `{write: page, byte}` sets it.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { pageSize } from "./guests/Guest.ts"
import { GuestError } from "./guests/GuestError.ts"
import type { Vcpu } from "./guests/Vcpu.ts"
import * as DaemonMemory from "./services/DaemonMemory.ts"
import { GuestThreads } from "./services/GuestThreads.ts"
import * as LinkMemory from "./services/LinkMemory.ts"
import { Prefault } from "./services/Prefault.ts"
import * as UserfaultfdMemory from "./services/UserfaultfdMemory.ts"

export interface Options {
  readonly blocks: ReadonlyArray<{ readonly idstr: string; readonly length: number }>
  /** What `start` of a fresh guest does with its memory; default: the first byte of each page is its number. */
  readonly start?: (memory: ReadonlyArray<Uint8Array>) => void
  /** Milliseconds that a byte is under way on the link. Default 0. */
  readonly latencyMillis?: number
  /** Ends the umem daemon as a SIGKILL would, when it completes. */
  readonly daemonCrash?: Effect.Effect<void>
}

const numbered = (memory: ReadonlyArray<Uint8Array>) => {
  for (const block of memory) for (let at = 0; at < block.length; at += pageSize) block[at] = at / pageSize
}

const unknown = new GuestError({ phase: "call", message: "the guest knows {read: page} and {write: page, byte}" })

/** One stay of the guest: at the source over its own bytes, at a destination over memory whose pages arrive. */
const stay = (options: Options, arriving: UserfaultfdMemory.ModelMemory): Vcpu => {
  const blocks = options.blocks.map(({ idstr, length }) => ({
    idstr,
    length,
    maximum: length,
    hostPageSize: pageSize,
    memory: { _tag: "Shared" as const, buffer: new SharedArrayBuffer(length) }
  }))
  const bytes = blocks.map(({ memory }) => new Uint8Array(memory.buffer))
  const first = Deferred.makeUnsafe<bigint>()
  let here = true
  let opened = Deferred.makeUnsafe<void>()
  const [{ idstr }] = options.blocks as readonly [Options["blocks"][number]]
  const run = Effect.suspend(() =>
    Deferred.succeed(opened, undefined).pipe(Effect.andThen(Deferred.succeed(first, 0n)))
  )
  return {
    kind: "memory",
    blocks: () => blocks,
    measure: Effect.succeed(blocks),
    start: Effect.andThen(Effect.sync(() => (options.start ?? numbered)(bytes)), run),
    run: Effect.asVoid(run),
    pause: Effect.sync(() => {
      opened = Deferred.makeUnsafe()
      return { lastStepNanos: 0n }
    }),
    capture: Effect.succeed(new Uint8Array(0)),
    grow: () => Effect.fail(new GuestError({ phase: "grow", message: "this guest does not grow" })),
    restore: () =>
      Effect.suspend(() => {
        here = false
        return Effect.asVoid(run)
      }),
    call: (request) =>
      Effect.gen(function*() {
        yield* Deferred.await(opened)
        const { byte, read, write } = Object(request) as Record<string, unknown>
        if (typeof read === "number") {
          return here ? bytes[0]![read * pageSize] : (yield* arriving.read(idstr, read))[0]
        }
        if (typeof write !== "number" || typeof byte !== "number") return yield* unknown
        if (here) bytes[0]![write * pageSize] = byte
        else yield* arriving.write(idstr, write, byte)
        return byte
      }),
    discards: () => {},
    firstStepNanos: Deferred.await(first),
    crashed: Effect.never
  }
}

/** Everything that `Guest.run`, `migrate` and `receive` need, for one migration. Modules that they name are not loaded. */
export const layer = (options: Options): Layer.Layer<never> =>
  Layer.unwrap(Effect.map(UserfaultfdMemory.make({ blocks: options.blocks }), (arriving) =>
    Layer.mergeAll(
      DaemonMemory.layer(arriving, options.daemonCrash),
      LinkMemory.layer({ latencyMillis: options.latencyMillis ?? 0 }),
      Layer.succeed(GuestThreads, { load: () => Effect.sync(() => stay(options, arriving)) }),
      Layer.succeed(Prefault, { make: () => Effect.succeed(() => Effect.void) })
    )))
