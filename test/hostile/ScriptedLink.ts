/**
 * A link whose peer is a script: the bytes it sends in the pieces and at the moments chance says, its end or its reset, and
 * how much it takes. Nothing runs by itself: `turn` is one turn of the event loop.
 */
import { AGAIN, type Link } from "../../src/services/Link.ts"
import type { Random } from "./Random.ts"

const ECONNRESET = -104
const EPIPE = -32

export class ScriptedLink implements Link {
  readonly descriptor = undefined
  readonly peer = "the script"
  readonly unsentIsUnread = true
  /** What the fuzzed end wrote, as far as the peer took it. */
  readonly taken: Array<Uint8Array> = []
  /** Turns, one after the other, in which the fuzzed end was called and neither read nor wrote anything. */
  spinning = 0
  closed = false
  reads = false
  writes = false
  #ready: (readable: boolean, writable: boolean) => void = () => {}
  readonly #input: Array<Uint8Array>
  readonly #random: Random
  /** A peer that does not read takes this many bytes more. */
  #room: number
  /** How the peer's sending ends once everything is read. */
  readonly #ending: "end" | "reset"
  #over = false
  /** A script that says AGAIN now and then. */
  readonly #hesitates: boolean

  constructor(
    input: ReadonlyArray<Uint8Array>,
    random: Random,
    ending: "end" | "reset",
    room: number,
    hesitates = true
  ) {
    this.#input = input.filter(({ length }) => length > 0)
    this.#random = random
    this.#ending = ending
    this.#room = room
    this.#hesitates = hesitates
  }

  /** Whether the fuzzed end has read everything, the end included. */
  get over(): boolean {
    return this.#over
  }

  read(into: Uint8Array, offset: number, length: number): number {
    this.spinning = 0
    if (this.closed) return EPIPE
    const piece = this.#input[0]
    if (piece === undefined) {
      this.#over = true
      return this.#ending === "end" ? 0 : ECONNRESET
    }
    if (this.#hesitates && this.#random.oneIn(4)) return AGAIN
    const n = Math.min(length, piece.length)
    into.set(piece.subarray(0, n), offset)
    if (n === piece.length) this.#input.shift()
    else this.#input[0] = piece.subarray(n)
    return n
  }

  write(from: Uint8Array, offset: number, length: number): number {
    if (this.closed || this.#over && this.#ending === "reset") return EPIPE
    if (this.#room === 0 || this.#hesitates && this.#random.oneIn(6)) return AGAIN
    const n = Math.min(
      length,
      this.#room,
      this.#hesitates && this.#random.oneIn(3) ? 1 + this.#random.below(length) : length
    )
    this.#room -= n
    this.spinning = 0
    this.taken.push(from.slice(offset, offset + n))
    return n
  }

  attach(onReady: (readable: boolean, writable: boolean) => void): void {
    this.#ready = onReady
  }

  watch(readable: boolean, writable: boolean): void {
    this.reads = readable
    this.writes = writable
  }

  /** False when nothing is waited for that can come. */
  turn(): boolean {
    const readable = this.reads
    const writable = this.writes && this.#room > 0
    if (this.closed || !readable && !writable) return false
    this.spinning++
    this.#ready(readable, writable)
    return true
  }

  /** The peer reads again. */
  makeRoom(): void {
    this.#room = Infinity
  }

  unsent(): number {
    return 0
  }

  close(): void {
    this.closed = true
  }

  release(): void {}
}
