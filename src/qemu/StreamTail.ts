/**
 * The last bytes of one direction, whatever came before them. A migration that went well ends each direction in bytes
 * that are known, so that how it ended can be told of a stream that was not understood, or not seen from its beginning.
 */
import { RAM_SECTION } from "../protocol/qemu/Constants.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import * as Stream from "../protocol/qemu/Stream.ts"
import * as RamStream from "../protocol/umem/RamStream.ts"

/** The last section may have pages in it: only what follows them is always the same. */
const ending = new Uint8Array(Buffer.concat([RamStream.eos(), Stream.footer(RAM_SECTION), Stream.eof()]))
const confirmation = ReturnPath.shut(0)

export class StreamTail {
  readonly #last = new Uint8Array(ending.length)
  #length = 0

  push(bytes: Uint8Array): void {
    const kept = this.#last.length
    if (bytes.length >= kept) this.#last.set(bytes.subarray(bytes.length - kept))
    else {
      this.#last.copyWithin(0, bytes.length)
      this.#last.set(bytes, kept - bytes.length)
    }
    this.#length += bytes.length
  }

  /** The source has sent everything, by post-copy. */
  get ended(): boolean {
    return this.#is(ending)
  }

  /** The destination has said that it has everything. */
  get confirmed(): boolean {
    return this.#is(confirmation)
  }

  #is(bytes: Uint8Array): boolean {
    if (this.#length < bytes.length) return false
    const from = this.#last.length - bytes.length
    return bytes.every((byte, i) => this.#last[from + i] === byte)
  }
}
