/**
 * Links whose both ends are in this process, on the ambient clock: bounded in each direction, with latency if asked for,
 * and breakable. They keep every promise of `Link`, so that whatever runs over a real link runs over these under
 * TestClock.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { LinkFailed, Refused } from "../MigrationError.ts"
import { AGAIN, type Link } from "./Link.ts"
import { Links } from "./Links.ts"

const ECONNRESET = -104
const EPIPE = -32

export interface Options {
  /** Bytes a direction holds. Default 64 KiB. */
  readonly capacity?: number
  /** Milliseconds until what was written can be read. Default 0. */
  readonly latencyMillis?: number
}

/** Chunks read to their end that are kept before all of them are dropped. */
const MANY_CHUNKS = 1024

/** One direction. */
interface Half {
  readonly chunks: Array<{ readonly bytes: Uint8Array; at: number; readonly due: number }>
  /** Of the chunks, the first that has not been read to its end. */
  first: number
  held: number
  ended: boolean
  broken: boolean
}

export interface MemoryLink extends Link {
  /** Breaks both directions at once, as a reset does: what is under way is lost. */
  readonly reset: () => void
  readonly closed: () => boolean
}

const half = (): Half => ({ chunks: [], first: 0, held: 0, ended: false, broken: false })

/** Two joined links. */
export const pair = (options: Options = {}): Effect.Effect<readonly [MemoryLink, MemoryLink]> =>
  Effect.gen(function*() {
    const { capacity = 64 * 1024, latencyMillis = 0 } = options
    const clock = yield* Effect.clockWith(Effect.succeed)
    const context = yield* Effect.context<never>()
    const later = (millis: number, run: () => void) => {
      Effect.runForkWith(context)(Effect.andThen(millis > 0 ? Effect.sleep(millis) : Effect.yieldNow, Effect.sync(run)))
    }
    const now = () => clock.currentTimeMillisUnsafe()
    const forth = half()
    const back = half()
    const ends: Array<{ tell: () => void }> = []

    const end = (incoming: Half, outgoing: Half, peer: string): MemoryLink => {
      let onReady: (readable: boolean, writable: boolean) => void = () => {}
      let wantsRead = false
      let wantsWrite = false
      let scheduled = false
      let closed = false
      const readable = () =>
        incoming.broken || incoming.ended && incoming.first === incoming.chunks.length ||
        (incoming.chunks[incoming.first]?.due ?? Infinity) <= now()
      const writable = () => outgoing.broken || outgoing.held < capacity
      const tell = () => {
        if (closed || scheduled || !((wantsRead && readable()) || (wantsWrite && writable()))) return
        scheduled = true
        later(0, () => {
          scheduled = false
          if (closed) return
          const r = wantsRead && readable()
          const w = wantsWrite && writable()
          if (r || w) onReady(r, w)
          tell()
        })
      }
      const other = () => ends.find((candidate) => candidate.tell !== tell)
      ends.push({ tell })
      const stop = (broken: boolean) => {
        outgoing.ended = true
        if (broken) {
          outgoing.broken = true
          incoming.broken = true
        }
        later(latencyMillis, () => other()?.tell())
      }
      return {
        peer,
        descriptor: undefined,
        read: (into, offset, length) => {
          if (incoming.broken) return ECONNRESET
          const chunk = incoming.chunks[incoming.first]
          if (chunk === undefined) return incoming.ended ? 0 : AGAIN
          if (chunk.due > now()) return AGAIN
          const n = Math.min(length, chunk.bytes.length - chunk.at)
          into.set(chunk.bytes.subarray(chunk.at, chunk.at + n), offset)
          chunk.at += n
          if (chunk.at === chunk.bytes.length && ++incoming.first >= MANY_CHUNKS) {
            // Seldom, so that a long queue of little chunks costs no more than it is long.
            incoming.chunks.splice(0, incoming.first)
            incoming.first = 0
          }
          incoming.held -= n
          other()?.tell()
          return n
        },
        write: (from, offset, length) => {
          if (outgoing.broken) return ECONNRESET
          if (closed || incoming.ended) return EPIPE
          const n = Math.min(length, capacity - outgoing.held)
          if (n <= 0) return AGAIN
          outgoing.chunks.push({ bytes: from.slice(offset, offset + n), at: 0, due: now() + latencyMillis })
          outgoing.held += n
          later(latencyMillis, () => other()?.tell())
          return n
        },
        attach: (callback) => {
          onReady = callback
        },
        watch: (r, w) => {
          wantsRead = r
          wantsWrite = w
          tell()
        },
        unsent: () => outgoing.held,
        unsentIsUnread: true,
        close: () => {
          if (closed) return
          closed = true
          stop(false)
        },
        release: () => {},
        reset: () => stop(true),
        closed: () => closed
      }
    }
    return [end(back, forth, "memory:b"), end(forth, back, "memory:a")] as const
  })

/** Endpoints by URI: a listener gets the other end of whoever connects to the same text. */
class Endpoints
  extends Context.Service<Endpoints, Map<string, Deferred.Deferred<Link>>>()("postcopy/services/LinkMemory/Endpoints")
{}

/** `Links` without a kernel. Each `listen` takes one connection. */
export const layer = (options: Options = {}): Layer.Layer<never> =>
  Layer.effect(
    Links,
    Effect.gen(function*() {
      const listening = yield* Endpoints
      return {
        connect: (to) =>
          Effect.gen(function*() {
            const uri = String(to)
            const waiting = listening.get(uri)
            if (waiting === undefined) {
              return yield* new LinkFailed({ code: "ECONNREFUSED", detail: `nobody listens at ${uri}` })
            }
            listening.delete(uri)
            const [here, there] = yield* pair(options)
            yield* Deferred.succeed(waiting, there)
            return here
          }),
        listen: (uri) =>
          Effect.gen(function*() {
            if (listening.has(uri)) return yield* new Refused({ detail: `${uri} is in use` })
            const accepted = yield* Deferred.make<Link>()
            listening.set(uri, accepted)
            const close = Effect.sync(() => {
              listening.delete(uri)
            })
            yield* Effect.addFinalizer(() => close)
            return { uri, accept: Deferred.await(accepted), close }
          })
      }
    })
  ).pipe(Layer.provide(Layer.sync(Endpoints, () => Endpoints.of(new Map()))))
