/**
 * Parses one record of a RAM section where it lies. Each word is judged when its bytes are there; a block list, which a
 * peer may make long, is parsed once however its bytes arrive. Without a block list (the channel of requested pages, a
 * recovered stream) the blocks are given.
 *
 * Hot path: one small object per page, nothing else.
 */
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { BlockTable, decode } from "../umem/Names.ts"
import { MAX_BLOCKS, RamFlag, TARGET_PAGE_SIZE } from "./Constants.ts"
import { isPowerOfTwo, type QemuBlock } from "./QemuBlock.ts"
import type { RamRecord } from "./StreamItem.ts"

/** Where and why the bytes are wrong; `at` counts from the first one not consumed. */
export class Problem {
  readonly at: number
  readonly message: string
  constructor(at: number, message: string) {
    this.at = at
    this.message = message
  }
}

/** Bytes of a page packed by zlib, at most: a page and what zlib adds to one that cannot be packed. */
const MAX_PACKED = TARGET_PAGE_SIZE + 64

export class RamParser {
  /** The OR of page sizes that was advised; 0 before, when no block of other pages can be listed. */
  advised = 0
  #blocks: ReadonlyArray<QemuBlock>
  #table: BlockTable
  /** Whether a record has named a block on this channel. */
  #context = false
  /** Bytes of the record found last. */
  length = 0
  /** The block list under way. */
  #list: Array<QemuBlock> = []
  #listAt = 0
  #left = 0
  #listed = false

  constructor(blocks?: ReadonlyArray<QemuBlock>) {
    this.#blocks = blocks ?? []
    this.#table = new BlockTable(this.#blocks)
    this.#listed = blocks !== undefined
  }

  /** The record at the start of the input, which it leaves there; `undefined` when bytes are missing. */
  parse(input: ReceiveBuffer): RamRecord | Problem | undefined {
    if (input.available < 8) return undefined
    const low = input.be32(4)
    const flags = low & (TARGET_PAGE_SIZE - 1) & ~RamFlag.Continue
    const continued = (low & RamFlag.Continue) !== 0
    switch (flags) {
      case RamFlag.Eos:
        if (input.be32(0) !== 0 || low !== RamFlag.Eos) {
          return new Problem(0, "the end of a RAM section carries an offset")
        }
        this.length = 8
        return { _tag: "Eos" }
      case RamFlag.MemSize:
        return continued ? new Problem(0, "a block list that continues a block") : this.#memSize(input)
      case RamFlag.Page:
      case RamFlag.Zero:
      case RamFlag.Xbzrle:
      case RamFlag.CompressPage:
        return this.#page(input, flags, continued)
      default:
        return new Problem(0, `a RAM record with flags 0x${(low & 0xfff).toString(16)}, which mean nothing here`)
    }
  }

  #page(input: ReceiveBuffer, flags: number, continued: boolean): RamRecord | Problem | undefined {
    if (!this.#listed) return new Problem(0, "a page before the list of blocks")
    let at = 8
    if (continued) {
      if (!this.#context) return new Problem(0, "a page that continues a block, before any block was named")
    } else {
      if (input.available < 9) return undefined
      const n = input.u8(8)
      if (n === 0) return new Problem(8, "the block's name is empty")
      at = 9 + n
      if (input.available < at) return undefined
      const problem = this.#table.find(input, 9, n)
      if (problem !== undefined) return new Problem(9, problem)
      this.#context = true
    }
    const { idstr, length } = this.#table
    const address = input.be64(0) - (input.be32(4) & (TARGET_PAGE_SIZE - 1))
    if (address > length - TARGET_PAGE_SIZE) {
      return new Problem(0, `a page at byte ${address} of block ${idstr}, which has ${length}`)
    }
    const from = input.start + at
    switch (flags) {
      case RamFlag.Page: {
        this.length = at + TARGET_PAGE_SIZE
        if (input.available < this.length) return undefined
        return { _tag: "Page", idstr, address, continued, data: input.bytes.subarray(from, from + TARGET_PAGE_SIZE) }
      }
      case RamFlag.Zero: {
        this.length = at + 1
        if (input.available < this.length) return undefined
        return { _tag: "Zero", idstr, address, continued, byte: input.u8(at) }
      }
      case RamFlag.Xbzrle: {
        if (input.available < at + 1) return undefined
        if (input.u8(at) !== 1) return new Problem(at, `XBZRLE encoding ${input.u8(at)}: only 1 is known`)
        if (input.available < at + 3) return undefined
        const n = input.u8(at + 1) * 256 + input.u8(at + 2)
        if (n > TARGET_PAGE_SIZE) return new Problem(at + 1, `an XBZRLE delta of ${n} bytes for a page`)
        this.length = at + 3 + n
        if (input.available < this.length) return undefined
        return { _tag: "Xbzrle", idstr, address, continued, delta: input.bytes.subarray(from + 3, from + 3 + n) }
      }
      default: {
        if (input.available < at + 4) return undefined
        const n = input.be32(at)
        if (n === 0 || n > MAX_PACKED) return new Problem(at, `a packed page of ${n} bytes`)
        this.length = at + 4 + n
        if (input.available < this.length) return undefined
        return { _tag: "CompressPage", idstr, address, continued, packed: input.bytes.subarray(from + 4, from + 4 + n) }
      }
    }
  }

  #memSize(input: ReceiveBuffer): RamRecord | Problem | undefined {
    const total = input.be64(0) - RamFlag.MemSize
    if (this.#listAt === 0) {
      if (this.#listed) return new Problem(0, "a second list of blocks")
      if (total === 0 || total > Number.MAX_SAFE_INTEGER) return new Problem(0, `blocks of ${total} bytes in all`)
      this.#listAt = 8
      this.#left = total
    }
    while (true) {
      const at = this.#listAt
      if (input.available < at + 1) return undefined
      if (input.u8(at) === 0) {
        // No name begins with 0: the page size of the block before, or the end of the section behind a complete list.
        if (input.available < at + 8) return undefined
        const problem = this.#pageSize(input, at)
        if (problem !== undefined) return problem
        if (this.#listAt !== at) continue
        break
      }
      if (this.#left === 0) return new Problem(at, "a block list that goes on behind its total")
      const entry = this.#entry(input, at)
      if (entry === undefined || entry instanceof Problem) return entry
      this.#list.push(entry)
      this.#left -= entry.length
    }
    this.length = this.#listAt
    this.#listAt = 0
    this.#blocks = this.#list
    this.#table = new BlockTable(this.#blocks)
    this.#listed = true
    return { _tag: "MemSize", total, blocks: this.#blocks }
  }

  /** Takes a page size; leaves `#listAt` where it is at the end of the list. */
  #pageSize(input: ReceiveBuffer, at: number): Problem | undefined {
    const value = input.be64(at)
    if (value === RamFlag.Eos) {
      return this.#left === 0 ? undefined : new Problem(at, `the block list ends ${this.#left} bytes before its total`)
    }
    const last = this.#list.at(-1)
    if (last === undefined || last.pageSize !== TARGET_PAGE_SIZE) return new Problem(at, "a block's name is empty")
    const known = isPowerOfTwo(value) && value > TARGET_PAGE_SIZE && Math.floor(this.advised / value) % 2 === 1
    if (!known || last.length % value !== 0) {
      return new Problem(at, `a page size of ${input.be64Exact(at)} bytes for block ${last.idstr}`)
    }
    this.#list[this.#list.length - 1] = { ...last, pageSize: value }
    this.#listAt = at + 8
    return undefined
  }

  #entry(input: ReceiveBuffer, at: number): QemuBlock | Problem | undefined {
    const n = input.u8(at)
    if (input.available < at + 1 + n + 8) return undefined
    if (this.#list.length === MAX_BLOCKS) return new Problem(at, `more than ${MAX_BLOCKS} blocks`)
    const idstr = decode(input, at + 1, n)
    if (idstr === undefined) return new Problem(at + 1, "the block's name is not UTF-8")
    if (this.#list.some((block) => block.idstr === idstr)) return new Problem(at + 1, `block ${idstr} is listed twice`)
    const length = input.be64(at + 1 + n)
    if (length === 0 || length % TARGET_PAGE_SIZE !== 0 || length > this.#left) {
      return new Problem(
        at + 1 + n,
        `block ${idstr} of ${input.be64Exact(at + 1 + n)} bytes, where ${this.#left} are left of the total`
      )
    }
    this.#listAt = at + 1 + n + 8
    return { idstr, length, pageSize: TARGET_PAGE_SIZE }
  }
}
