/**
 * One direction of a relayed connection: what is read from one link is written to the other, in order and unchanged. It
 * holds at most one small buffer, since a page that is waited for stands behind whatever is in it. The end of one side's
 * bytes is passed on, and the other direction goes on.
 *
 * Hot path: no Effect per page.
 */
import { errnoName } from "../native/Errno.ts"
import { AGAIN, type Link } from "../services/Link.ts"

/** Bytes under way in one direction, at most. */
const BUFFER_BYTES = 64 * 1024

export interface RelayPipe {
  /** Moves what can be moved. */
  readonly pump: () => void
  /** Whether it waits for bytes to read, and for room to write. */
  readonly wants: () => { readonly read: boolean; readonly write: boolean }
  readonly ended: () => boolean
  /** Why it broke, if it did. */
  readonly failure: () => string | undefined
  readonly bytes: () => number
}

/** `first`: what was read before, at most a buffer full. */
export const make = (
  from: Link,
  to: Link,
  onBytes: (bytes: Uint8Array) => void,
  onEnd: () => void,
  first: Uint8Array = new Uint8Array(0)
): RelayPipe => {
  const buffer = new Uint8Array(BUFFER_BYTES)
  buffer.set(first)
  let at = 0
  let end = first.length
  let ended = false
  let failure: string | undefined
  let bytes = 0
  const stop = (why?: string) => {
    ended = true
    failure = why
    onEnd()
  }
  return {
    pump: () => {
      while (!ended) {
        if (at === end) {
          const n = from.read(buffer, 0, buffer.length)
          if (n === AGAIN) return
          if (n <= 0) return stop(n === 0 ? undefined : errnoName(-n))
          at = 0
          end = n
        }
        const n = to.write(buffer, at, end - at)
        if (n === AGAIN) return
        if (n <= 0) return stop(n === 0 ? "EIO" : errnoName(-n))
        // What was passed on is looked at afterwards: the peer has it while it is parsed here.
        onBytes(buffer.subarray(at, at + n))
        at += n
        bytes += n
      }
    },
    wants: () => ({ read: !ended && at === end, write: !ended && at < end }),
    ended: () => ended,
    failure: () => failure,
    bytes: () => bytes
  }
}
