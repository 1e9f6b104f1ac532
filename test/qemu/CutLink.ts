/**
 * A link whose peer is a script: it takes so many bytes and is gone, or takes no more, or says something once it has got
 * something. What it has taken is kept. Like a socket it calls only what is watched, in turns of the event loop.
 */
import { AGAIN, type Link } from "../../src/services/Link.ts"

const ECONNRESET = -104
const EPIPE = -32

export class CutLink implements Link {
  readonly descriptor = undefined
  readonly peer = "the script"
  readonly unsentIsUnread = true
  /** All that the peer has taken. */
  readonly taken: Array<Uint8Array> = []
  length = 0
  /** The peer has gone away without a word. */
  broken = false
  /** The peer has ended its direction. */
  ended = false
  closed = false
  readonly #limit: number
  readonly #breaks: boolean
  readonly #onTaken: (link: CutLink) => void
  #said: Array<Uint8Array> = []
  #ready: (readable: boolean, writable: boolean) => void = () => {}
  #reads = false
  #writes = false
  #scheduled = false

  /** `limit`: bytes that the peer takes; then it is gone, or `breaks` is false. `onTaken`: it has taken some. */
  constructor(limit: number, breaks: boolean, onTaken: (link: CutLink) => void = () => {}) {
    this.#limit = limit
    this.#breaks = breaks
    this.#onTaken = onTaken
    this.broken = breaks && limit === 0
  }

  /** The peer says so. */
  say(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#said.push(bytes)
    this.#tell()
  }

  /** The peer has nothing more to say. */
  end(): void {
    this.ended = true
    this.#tell()
  }

  bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.taken))
  }

  read(into: Uint8Array, offset: number, length: number): number {
    const piece = this.#said[0]
    // A peer whose other direction was ended ends its own one.
    if (piece === undefined) return this.broken ? ECONNRESET : this.ended || this.closed ? 0 : AGAIN
    const n = Math.min(length, piece.length)
    into.set(piece.subarray(0, n), offset)
    if (n === piece.length) this.#said.shift()
    else this.#said[0] = piece.subarray(n)
    return n
  }

  write(from: Uint8Array, offset: number, length: number): number {
    if (this.broken || this.closed) return EPIPE
    const n = Math.min(length, this.#limit - this.length)
    if (n === 0) return AGAIN
    this.taken.push(from.slice(offset, offset + n))
    this.length += n
    this.broken = this.#breaks && this.length === this.#limit
    this.#onTaken(this)
    this.#tell()
    return n
  }

  attach(onReady: (readable: boolean, writable: boolean) => void): void {
    this.#ready = onReady
  }

  watch(readable: boolean, writable: boolean): void {
    this.#reads = readable
    this.#writes = writable
    this.#tell()
  }

  unsent(): number {
    return 0
  }

  close(): void {
    this.closed = true
  }

  release(): void {}

  #tell(): void {
    if (this.#scheduled || this.closed) return
    const readable = () => this.#reads && (this.#said.length > 0 || this.broken || this.ended)
    const writable = () => this.#writes && (this.broken || this.length < this.#limit)
    if (!readable() && !writable()) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      const r = readable()
      const w = writable()
      if (this.closed || (!r && !w)) return
      this.#ready(r, w)
      this.#tell()
    })
  }
}
