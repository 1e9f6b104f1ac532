/**
 * Stands between two QEMUs: listens where the source connects, connects where the destination listens, and passes every
 * byte on. A migration may take several connections: a second one for requested pages, and new ones after a break; they
 * are told apart by their order and first bytes. It ends when the migration has.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { LinkFailed } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import type { Link } from "../services/Link.ts"
import { Links } from "../services/Links.ts"
import * as ImageWriter from "./ImageWriter.ts"
import type { Manifest } from "./Manifest.ts"
import type { QemuReason } from "./QemuError.ts"
import * as RelayOpening from "./RelayOpening.ts"
import * as RelayPipe from "./RelayPipe.ts"
import * as RelayTap from "./RelayTap.ts"

export interface Options {
  readonly listen: string
  readonly connect: string
  /** Where to keep an image; without it the pages are only counted. */
  readonly tee: string | undefined
}

export interface Relayed {
  readonly bytes: number
  readonly connections: number
  readonly progress: RelayTap.RelayProgress
  readonly manifest: Manifest | undefined
}

export interface Relaying {
  /** The bound address. */
  readonly uri: string
  readonly progress: () => RelayTap.RelayProgress
  readonly finished: Effect.Effect<Relayed, QemuReason>
}

const shutdown = (link: Link) => () => {
  const addon = Binding.load()
  try {
    if (addon !== undefined && link.descriptor !== undefined) addon.shutdown(link.descriptor, addon.constants.SHUT_WR)
    else link.close()
  } catch {
    // It is closed already: nothing is left to be said on it.
  }
}

/** Passes one connection on until both directions have ended; how each ended. */
const joined = (
  source: Link,
  destination: Link,
  first: Uint8Array,
  channel: "main" | "resumed" | "urgent",
  tap: RelayTap.RelayTap
) =>
  Effect.callback<{ readonly bytes: number; readonly failure: string | undefined }>((resume) => {
    const forward = tap.forward(channel)
    // The channel of requested pages has no return path.
    const back = channel === "urgent" ? undefined : tap.back()
    const there = RelayPipe.make(source, destination, forward.push, shutdown(destination), first)
    const here = RelayPipe.make(destination, source, (bytes) => back?.push(bytes), shutdown(source))
    const pump = () => {
      there.pump()
      here.pump()
      if (there.ended() && here.ended()) {
        source.watch(false, false)
        destination.watch(false, false)
        return resume(Effect.succeed({
          bytes: there.bytes() + here.bytes(),
          failure: there.failure() ?? here.failure()
        }))
      }
      const t = there.wants()
      const h = here.wants()
      source.watch(t.read, h.write)
      destination.watch(h.read, t.write)
    }
    source.attach(pump)
    destination.attach(pump)
    pump()
    return Effect.sync(() => {
      source.watch(false, false)
      destination.watch(false, false)
    })
  })

/** Listens; the migration goes on until it has finished or the scope ends. */
export const begin = (options: Options): Effect.Effect<Relaying, QemuReason, Scope.Scope> =>
  Effect.gen(function*() {
    const links = yield* Links
    const writer = options.tee === undefined ? undefined : yield* ImageWriter.make(options.tee)
    const tap = RelayTap.make(writer)
    const listener = yield* links.listen(options.listen)
    const over = Deferred.makeUnsafe<void, QemuReason>()
    let connections = 0
    /** Connections that are there; of the first of them, whether the destination has it. */
    let open = 0
    let first = Deferred.makeUnsafe<boolean>()
    let bytes = 0

    const begun = Effect.fnUntraced(function*(source: Link) {
      if (open++ === 0) {
        first = Deferred.makeUnsafe()
        const opening = yield* RelayOpening.open(source, options.connect)
        Deferred.doneUnsafe(first, Effect.succeed(opening !== undefined))
        return opening && { ...opening, channel: opening.kind === "header" ? "main" : "resumed" } as const
      }
      // A second channel says nothing until a page is asked for, and the destination begins once both are there.
      if (!(yield* Deferred.await(first))) return undefined
      const destination = yield* RelayOpening.connect(options.connect)
      return { first: new Uint8Array(0), destination, channel: "urgent" } as const
    })

    const serve = Effect.fnUntraced(function*(source: Link) {
      const one = yield* begun(source)
      // It went away without a word, or its destination was not there yet.
      if (one === undefined) return
      connections++
      const ended = yield* joined(source, one.destination, one.first, one.channel, tap)
      bytes += ended.bytes
      if (open > 1) return
      if (tap.completed()) return void Deferred.doneUnsafe(over, Effect.void)
      // A post-copy migration may be recovered over a new connection; a precopy one is over.
      if (tap.progress().phase === "postcopy" || one.channel === "resumed") return
      const why = ended.failure ?? "the connection was closed"
      const detail = tap.broken() === undefined
        ? `the migration ended early (${why}): the guest is where it was`
        : `the connection ended (${why}) behind a stream that is not understood (${tap.broken()}): whether the ` +
          "migration went through, the two QEMUs know (query-migrate)"
      Deferred.doneUnsafe(over, Effect.fail(new LinkFailed({ code: ended.failure ?? "EOF", detail })))
    }, Effect.scoped)

    const accepting = Effect.gen(function*() {
      while (true) {
        const source = yield* listener.accept
        yield* Effect.forkScoped(
          serve(source).pipe(
            Effect.ensuring(Effect.sync(() => {
              open--
              Deferred.doneUnsafe(first, Effect.succeed(false))
              source.close()
            })),
            Effect.catch((reason: QemuReason) => Effect.sync(() => void Deferred.doneUnsafe(over, Effect.fail(reason))))
          )
        )
      }
    })
    yield* Effect.forkScoped(
      accepting.pipe(
        Effect.catch((reason: QemuReason) => Effect.sync(() => void Deferred.doneUnsafe(over, Effect.fail(reason))))
      )
    )
    return {
      uri: listener.uri,
      progress: tap.progress,
      finished: Effect.gen(function*() {
        yield* Deferred.await(over)
        const manifest = options.tee === undefined ? undefined : yield* tap.commit
        return { bytes, connections, progress: tap.progress(), manifest }
      })
    }
  })
