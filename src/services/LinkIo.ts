/**
 * Waiting reads and writes on a link, for the phases that are not hot: the savevm stream before the switchover, the pipe
 * protocol, the last bytes. Each takes over the link's one callback while it waits.
 */
import * as Effect from "effect/Effect"
import { LinkFailed } from "../MigrationError.ts"
import { errnoName } from "../native/Errno.ts"
import { AGAIN, type Link } from "./Link.ts"

const broken = (link: Link, errno: number) => {
  const code = errnoName(-errno)
  return new LinkFailed({ code, detail: `the connection to ${link.peer} failed: ${code}` })
}

/** Waits until the link is readable or writable, as asked. */
export const ready = (link: Link, readable: boolean, writable: boolean): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    link.attach(() => {
      link.watch(false, false)
      resume(Effect.void)
    })
    link.watch(readable, writable)
    return Effect.sync(() => link.watch(false, false))
  })

/** Writes all of `bytes`; waits while the link takes none. */
export const writeAll = (link: Link, bytes: Uint8Array): Effect.Effect<void, LinkFailed> =>
  Effect.gen(function*() {
    let at = 0
    while (at < bytes.length) {
      const n = link.write(bytes, at, bytes.length - at)
      if (n > 0) at += n
      else if (n === AGAIN) yield* ready(link, false, true)
      else return yield* broken(link, n === 0 ? -5 : n)
    }
  })

/** Reads what is there, waiting for the first byte. 0 is the end of the stream. */
export const readSome = (link: Link, into: Uint8Array): Effect.Effect<number, LinkFailed> =>
  Effect.gen(function*() {
    while (true) {
      const n = link.read(into, 0, into.length)
      if (n >= 0) return n
      if (n !== AGAIN) return yield* broken(link, n)
      yield* ready(link, true, false)
    }
  })

/** Pauses between two looks at the unsent bytes: there is no event for "all taken". Milliseconds, doubled up to the last. */
const FIRST_LOOK = 0.1
const LAST_LOOK = 5

/** Looks before the first pause, a turn of the event loop apart: a timer takes a millisecond, a peer that is awake less. */
const QUICK_LOOKS = 100

/** Waits until the peer has taken every byte, at most `millis`. */
export const drained = (link: Link, millis: number): Effect.Effect<void, LinkFailed> =>
  Effect.gen(function*() {
    let pause = FIRST_LOOK
    let waited = 0
    let looks = 0
    while (true) {
      const n = link.unsent()
      if (n === 0) return
      if (n < 0) return yield* broken(link, n)
      if (++looks < QUICK_LOOKS) {
        yield* Effect.yieldNow
        continue
      }
      if (waited >= millis) {
        return yield* new LinkFailed({
          code: "TIMEOUT",
          detail: `${link.peer} did not take the last ${n} bytes within ${millis} ms`
        })
      }
      yield* Effect.sleep(pause)
      waited += pause
      pause = Math.min(pause * 2, LAST_LOOK)
    }
  })

/** Fails when the peer has closed the link or said anything: before the switchover it has nothing to say. */
export const unobjected = (link: Link): Effect.Effect<void, LinkFailed> =>
  Effect.suspend(() => {
    const n = link.read(new Uint8Array(1), 0, 1)
    if (n === AGAIN) return Effect.void
    return Effect.fail(
      n < 0 ? broken(link, n) : new LinkFailed({
        code: n === 0 ? "EOF" : "EPROTO",
        detail: n === 0
          ? `${link.peer} refused the guest: it closed the connection before the switchover (its own message says why)`
          : `${link.peer} answered before the switchover`
      })
    )
  })
