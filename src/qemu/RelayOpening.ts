/**
 * How a relayed connection begins. The source speaks first: nobody is connected to the destination for one that says
 * nothing. A recovery may not break off once it has begun, or QEMU 7.2 is lost at either end: its source waits for ever
 * when its new connection closes, its destination crashes. So the source of a recovery is kept waiting, its bytes
 * unread by others, until the destination listens again, and is known to be there when it is connected.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LinkFailed } from "../MigrationError.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import * as LinkIo from "../services/LinkIo.ts"
import { type LinkError, Links } from "../services/Links.ts"

export interface RelayOpening {
  readonly kind: "header" | "recovery"
  /** What the source has said. */
  readonly first: Uint8Array
  readonly destination: Link
}

/** First byte of a migration stream's header. Anything else is a command, with which a recovery begins. */
const HEADER = 0x51
/** More than the commands of a recovery take before its source waits for an answer. */
const FIRST_BYTES = 64 * 1024
/** Between two attempts to reach a destination that does not listen yet. Milliseconds. */
const ATTEMPT_MILLIS = 50

export const connect = (to: string): Effect.Effect<Link, LinkError, Scope.Scope> =>
  Effect.gen(function*() {
    const links = yield* Links
    return yield* Effect.acquireRelease(links.connect(to), (link) => Effect.sync(() => link.close()))
  })

/** The connection of a source that has said something; `undefined` when it went away before there was one. */
export const open = (
  source: Link,
  to: string
): Effect.Effect<RelayOpening | undefined, LinkError | LinkFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const first = new Uint8Array(FIRST_BYTES)
    let length = yield* LinkIo.readSome(source, first)
    if (length === 0) return undefined
    if (first[0] === HEADER) {
      return { kind: "header", first: first.subarray(0, length), destination: yield* connect(to) }
    }
    while (true) {
      // Without a turn of the event loop between the look and the connection.
      const n = length < first.length ? source.read(first, length, first.length - length) : AGAIN
      if (n > 0) length += n
      else if (n !== AGAIN) return undefined
      const destination = yield* Effect.option(connect(to))
      if (destination._tag === "Some") {
        return { kind: "recovery", first: first.subarray(0, length), destination: destination.value }
      }
      yield* Effect.sleep(ATTEMPT_MILLIS)
    }
  })
