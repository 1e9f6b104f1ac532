/**
 * A growing run of big-endian bytes: what every encoder of this dialect writes to. Offsets above 2^32 are numbers too,
 * exact up to 2^53.
 */
import { encode as encodeName } from "../umem/Names.ts"

export class Bytes {
  #bytes = new Uint8Array(256)
  #length = 0

  /** Bytes written so far. */
  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
    return this
  }

  u16(value: number): this {
    return this.u8(value >>> 8).u8(value)
  }

  u32(value: number): this {
    return this.u16(value >>> 16).u16(value)
  }

  u64(value: number | bigint): this {
    const exact = BigInt(value)
    return this.u32(Number(exact >> 32n)).u32(Number(exact & 0xffffffffn))
  }

  /** Length byte and name. @throws RangeError for a name of 0 or more than 255 bytes. */
  name(name: string): this {
    return this.raw(encodeName(name))
  }

  raw(bytes: Uint8Array): this {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
    return this
  }

  /** A copy of what was written. */
  done(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  #reserve(length: number): void {
    if (this.#length + length <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + length))
    grown.set(this.#bytes.subarray(0, this.#length))
    this.#bytes = grown
  }
}
