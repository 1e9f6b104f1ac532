/**
 * The linear receive buffer under every incremental decoder. Bytes between `start` and `end` have arrived and are not
 * consumed; a message is parsed where it lies, so page data can be given out as a range of `bytes` instead of a copy.
 * Bytes move only when a push would run over the end of the array, and the array grows only by bytes that arrived.
 */

export class ReceiveBuffer {
  /** Replaced when it grows: read it again after every push or `reserve`. */
  bytes: Uint8Array
  /** First byte not consumed. */
  start = 0
  /** One past the last byte that arrived. */
  end = 0
  /** Offset in the stream of the byte at `start`. */
  offset: number

  constructor(offset: number, capacity: number) {
    this.offset = offset
    this.bytes = new Uint8Array(capacity)
  }

  get available(): number {
    return this.end - this.start
  }

  /** Appends a copy of the bytes. */
  push(chunk: Uint8Array): void {
    this.reserve(chunk.length)
    this.bytes.set(chunk, this.end)
    this.end += chunk.length
  }

  /** Makes room for `length` bytes at `end`, to be read into directly and told by `commit`. */
  reserve(length: number): void {
    if (this.start === this.end) this.start = this.end = 0
    if (this.bytes.length - this.end >= length) return
    const pending = this.end - this.start
    if (this.bytes.length - pending >= length && this.start >= pending) {
      this.bytes.copyWithin(0, this.start, this.end)
    } else {
      const grown = new Uint8Array(Math.max(this.bytes.length * 2, pending + length))
      grown.set(this.bytes.subarray(this.start, this.end))
      this.bytes = grown
    }
    this.start = 0
    this.end = pending
  }

  /** `length` bytes were written at `end`, within what was reserved. */
  commit(length: number): void {
    this.end += length
  }

  /** Lets go of the first `length` bytes. They stay readable in `bytes` until the next push or `reserve`. */
  consume(length: number): void {
    this.start += length
    this.offset += length
  }

  /** Takes everything that is not consumed, as a copy. */
  take(): Uint8Array {
    const rest = this.bytes.slice(this.start, this.end)
    this.consume(rest.length)
    return rest
  }

  /** The byte at `at` from the first one not consumed; the caller has checked `available`. */
  u8(at: number): number {
    return this.bytes[this.start + at]!
  }

  be32(at: number): number {
    const i = this.start + at
    const bytes = this.bytes
    return ((bytes[i]! << 24) | (bytes[i + 1]! << 16) | (bytes[i + 2]! << 8) | bytes[i + 3]!) >>> 0
  }

  /** A be64 as a number: exact up to 2^53, beyond it only surely above every offset that can exist. */
  be64(at: number): number {
    return this.be32(at) * 0x100000000 + this.be32(at + 4)
  }

  /** One BigInt a call and nothing else: thousands of them may be in a message. */
  be64Exact(at: number, little = false): bigint {
    if (this.#view.buffer !== this.bytes.buffer) this.#view = new DataView(this.bytes.buffer)
    return this.#view.getBigUint64(this.start + at, little)
  }
  #view: DataView = new DataView(new ArrayBuffer(0))
}
