/**
 * Block names on the wire: u8 length, then that many bytes of UTF-8, no terminator, length 0 illegal. Names are
 * compared whole. A decoder meets the same few again and again, so the last one is compared as bytes first.
 */
import type { RamBlock } from "../RamBlock.ts"
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { MAX_NAME_BYTES } from "./Constants.ts"

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Length byte and name. @throws RangeError for a name of 0 or more than 255 bytes. */
export const encode = (name: string): Uint8Array => {
  const bytes = encoder.encode(name)
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES) {
    throw new RangeError(
      `the name ${JSON.stringify(name)} has ${bytes.length} bytes: 1 to ${MAX_NAME_BYTES} are possible`
    )
  }
  const out = new Uint8Array(1 + bytes.length)
  out[0] = bytes.length
  out.set(bytes, 1)
  return out
}

/** The encoded form of names that are sent again and again. */
export class NameCache {
  readonly #encoded = new Map<string, Uint8Array>()

  get(name: string): Uint8Array {
    let bytes = this.#encoded.get(name)
    if (bytes === undefined) this.#encoded.set(name, bytes = encode(name))
    return bytes
  }
}

/** The name of `length` bytes at `at`; `undefined` when it is not UTF-8. */
export const decode = (input: ReceiveBuffer, at: number, length: number): string | undefined => {
  const from = input.start + at
  try {
    return decoder.decode(input.bytes.subarray(from, from + length))
  } catch {
    return undefined
  }
}

/** Resolves names to blocks; without a table every name is a block of unknown length. */
export class BlockTable {
  /** What `find` found. */
  idstr = ""
  /** Its place in the list of blocks, or -1 without a list. */
  index = -1
  /** Its bytes, or Infinity without a list. */
  length = Infinity
  readonly #byName: Map<string, number> | undefined
  readonly #blocks: ReadonlyArray<RamBlock>
  #last = new Uint8Array(0)

  constructor(blocks: ReadonlyArray<RamBlock> | undefined) {
    this.#blocks = blocks ?? []
    this.#byName = blocks && new Map(blocks.map((block, index) => [block.idstr, index]))
  }

  /** Looks up the name of `n` bytes at `at`; why not, when there is no such block. */
  find(input: ReceiveBuffer, at: number, n: number): string | undefined {
    if (this.#isLast(input, at, n)) return undefined
    const name = decode(input, at, n)
    if (name === undefined) return "the block's name is not UTF-8"
    const index = this.#byName === undefined ? -1 : this.#byName.get(name)
    if (index === undefined) return `there is no block ${JSON.stringify(name)}`
    this.idstr = name
    this.index = index
    if (index >= 0) this.length = this.#blocks[index]!.length
    const from = input.start + at
    this.#last = input.bytes.slice(from, from + n)
    return undefined
  }

  #isLast(input: ReceiveBuffer, at: number, n: number): boolean {
    const last = this.#last
    if (last.length !== n) return false
    const { bytes } = input
    const from = input.start + at
    for (let i = 0; i < n; i++) if (bytes[from + i] !== last[i]) return false
    return true
  }
}
