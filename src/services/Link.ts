/**
 * One end of a stream connection between source and destination. Reads and writes are synchronous and signed, as the
 * kernel's are: bytes, 0 for the end of the stream, or a negative errno; `watch` says what readiness is waited for and
 * is level-triggered. Nothing is buffered here, so a link can be handed to another process between any two calls.
 *
 * Hot path: no Effect per page.
 */
import type { Descriptor } from "userfaultfd-napi"

/** -EAGAIN: nothing to read now, or no room to write now. */
export const AGAIN = -11

export interface Link {
  /** Bytes read into `into` at `offset`, 0 at the end of the stream, or -errno. */
  readonly read: (into: Uint8Array, offset: number, length: number) => number
  /** Bytes taken, or -errno. */
  readonly write: (from: Uint8Array, offset: number, length: number) => number
  /** Sets the one callback; it may be replaced. A failed poll is told as readable, the next read has the errno. */
  readonly attach: (onReady: (readable: boolean, writable: boolean) => void) => void
  /** What `onReady` is called for, until changed. */
  readonly watch: (readable: boolean, writable: boolean) => void
  /** Bytes written that the peer (unix) or the peer's kernel (TCP) has not taken. */
  readonly unsent: () => number
  /** Whether `unsent() === 0` says that the peer's process has read everything, not only its kernel. */
  readonly unsentIsUnread: boolean
  /** Idempotent; no callback comes afterwards. */
  readonly close: () => void
  /** Lets go of this end once another process has it too: the connection goes on there. Idempotent. */
  readonly release: () => void
  /** The raw descriptor, which stays the link's; `undefined` where there is none. */
  readonly descriptor: Descriptor | undefined
  /** For messages: the URI of the other end. */
  readonly peer: string
}

const plain = new WeakMap<Link, Descriptor>()

/** Notes that a link is nothing but its descriptor. */
export const markPlain = <L extends Link>(link: L, descriptor: Descriptor): L => {
  plain.set(link, descriptor)
  return link
}

/**
 * The descriptor of a link that is nothing else, past whose `read` and `write` bytes may go; `undefined` for a link that
 * was made of another one, whatever it does with the bytes.
 */
export const plainDescriptor = (link: Link): Descriptor | undefined => plain.get(link)

/** A link that flips the lowest bit of one byte of what is written: the test hook for wrong bytes on the wire. */
export const flippingByteAt = (link: Link, at: number): Link => {
  let written = 0
  return {
    ...link,
    write: (from, offset, length) => {
      const index = at - written
      const hit = index >= 0 && index < length
      const bytes = hit ? from.slice(offset, offset + length) : from
      if (hit) bytes[index]! ^= 1
      const n = link.write(bytes, hit ? 0 : offset, length)
      if (n > 0) written += n
      return n
    }
  }
}
