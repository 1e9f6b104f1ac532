/**
 * The record parser under every RAM stream: one record a call, told by a small number and the reader's own fields, so
 * that a page costs no object. Each word is judged when its bytes are there; a record is parsed once, however its bytes
 * arrive. The fields of a record are valid until the next call or push.
 *
 * Hot path: no Effect per page, no allocation per page.
 */
import type { RamBlock } from "../RamBlock.ts"
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { MAX_BLOCKS, RamFlag, TARGET_PAGE_SIZE } from "./Constants.ts"
import { BlockTable, decode } from "./Names.ts"

/** What {@link RamReader.next} found. */
export const Read = { NeedMore: 0, Page: 1, Fill: 2, MemSize: 3, Eos: 4, Malformed: -1 } as const
export type Read = typeof Read[keyof typeof Read]

/**
 * What may stand in a stream: `section` (inside savevm: only a block list and EOS), `postcopy` (pages, then exactly one
 * EOS and nothing after it), `any` (everything: for captures).
 */
export type Phase = "section" | "postcopy" | "any"

/** Why a block of a list cannot be; asked when its name is there, `length` undefined, and again with its length. */
export type RefuseBlock = (idstr: string, length: number | undefined) => string | undefined

export interface ReaderOptions {
  readonly phase: Phase
  /** The guest's blocks. Without them any name is taken, and after a block list the blocks of that list. */
  readonly blocks?: ReadonlyArray<RamBlock>
  /** Judges each block of a list in the place of `blocks`, by its name first: why not, or `undefined`. */
  readonly refuseBlock?: RefuseBlock
  /** Bytes of a target page, a power of two of at least 256. Default 4096. */
  readonly targetPageSize?: number
}

const KNOWN_FLAGS = RamFlag.Compress | RamFlag.MemSize | RamFlag.Page | RamFlag.Eos | RamFlag.Continue

type Stage = "word" | "name" | "payload" | "list" | "over"

export class RamReader {
  /** Byte offset in the block, of a page or fill; at most 2^53 exact. */
  address = 0
  /** The block of a page or fill; its place in the list of blocks, or -1 without a list. */
  idstr = ""
  blockIndex = -1
  /** Whether the record had CONTINUE instead of a name. */
  continued = false
  /** Where in `input.bytes` a page's data lies: `targetPageSize` bytes. */
  dataAt = 0
  /** The byte that a filled page repeats. */
  byte = 0
  /** The last block list. */
  blocks: ReadonlyArray<RamBlock> = []
  /** The exact total and lengths of the last block list, in bytes. */
  total = 0n
  lengths: ReadonlyArray<bigint> = []
  /** Offset in the stream: of the record, or of what is malformed. */
  offset = 0
  /** Why the input is malformed. */
  problem = ""
  readonly targetPageSize: number

  readonly #input: ReceiveBuffer
  readonly #phase: Phase
  readonly #given: ReadonlyArray<RamBlock> | undefined
  readonly #refuseBlock: ReaderOptions["refuseBlock"]
  #table: BlockTable
  #stage: Stage = "word"
  #context = false
  #high = 0
  #low = 0
  #flags = 0
  /** Where the next field of the record under way begins. */
  #at = 0
  #list: Array<RamBlock> = []
  #lengths: Array<bigint> = []
  #remaining = 0n
  #listed = false

  /** @throws RangeError for a page size whose offsets would collide with the flags. */
  constructor(input: ReceiveBuffer, options: ReaderOptions) {
    const { refuseBlock, blocks, phase, targetPageSize = TARGET_PAGE_SIZE } = options
    if (!(targetPageSize >= 256 && targetPageSize <= 2 ** 30 && Math.log2(targetPageSize) % 1 === 0)) {
      throw new RangeError(`target page size ${targetPageSize} is no power of two from 256 to 2^30`)
    }
    this.#input = input
    this.#phase = phase
    this.#given = blocks
    this.#refuseBlock = refuseBlock
    this.#table = new BlockTable(blocks)
    this.targetPageSize = targetPageSize
  }

  /** Whether the next byte begins a record. */
  get idle(): boolean {
    return this.#stage === "word" || this.#stage === "over"
  }

  /** The block that a record without a name means, by its place in the list, if the input begins with a record that may be such a one; else -1. */
  get continuing(): number {
    const begins = this.#stage === "word" || this.#stage === "payload" && this.continued
    return begins && this.#context ? this.#table.index : -1
  }

  /** Begins the record again that the input begins with: somebody else may consume it. Only where {@link continuing}. */
  rewind(): void {
    this.#stage = "word"
  }

  /** The byte offset of the last page or fill, also above 2^53. */
  exactAddress(): bigint {
    return (BigInt(this.#high) << 32n) | BigInt(this.#low)
  }

  /** The next record, consumed from the input. After `Malformed` it must not be called again. */
  next(): Read {
    const input = this.#input
    while (true) {
      switch (this.#stage) {
        case "word": {
          if (input.available < 8) return Read.NeedMore
          const problem = this.#readWord()
          if (problem !== undefined) return this.#malformed(0, problem)
          if (this.#flags === RamFlag.Eos) {
            this.#at = 8
            if (this.#phase === "postcopy") this.#stage = "over"
            return this.#done(Read.Eos)
          }
          break
        }
        case "name": {
          if (input.available < 9) return Read.NeedMore
          const n = input.u8(8)
          if (n === 0) return this.#malformed(8, "the block's name is empty")
          if (input.available < 9 + n) return Read.NeedMore
          const problem = this.#table.find(input, 9, n)
          if (problem !== undefined) return this.#malformed(9, problem)
          this.#context = true
          if (this.address >= this.#table.length) return this.#malformed(0, this.#beyond())
          this.#at = 9 + n
          this.#stage = "payload"
          break
        }
        case "payload": {
          const page = (this.#flags & RamFlag.Page) !== 0
          const size = page ? this.targetPageSize : 1
          if (input.available < this.#at + size) return Read.NeedMore
          this.idstr = this.#table.idstr
          this.blockIndex = this.#table.index
          if (page) this.dataAt = input.start + this.#at
          else this.byte = input.u8(this.#at)
          this.#at += size
          this.#stage = "word"
          return this.#done(page ? Read.Page : Read.Fill)
        }
        case "list": {
          while (this.#remaining > 0n) {
            const read = this.#readEntry()
            if (read !== undefined) return read
          }
          return this.#finishList()
        }
        case "over":
          return input.available === 0 ? Read.NeedMore : this.#malformed(0, "bytes follow the end of the page stream")
      }
    }
  }

  /**
   * After a page or fill: consumes the records behind it that go on where it ends, of the same kind and the same fill
   * byte, at most `most`, and says how many. Their data lie {@link stride} bytes apart from `dataAt` on. What is no such
   * record, or not all there, is left for {@link next} to judge.
   */
  more(most: number): number {
    if (this.#stage !== "word") return 0
    const input = this.#input
    const { bytes, end } = input
    const page = (this.#flags & RamFlag.Page) !== 0
    const low = RamFlag.Continue | (page ? RamFlag.Page : RamFlag.Compress)
    const size = page ? this.stride : 9
    const limit = this.#table.length
    let at = input.start
    let address = this.address + this.targetPageSize
    let count = 0
    for (; count < most && end - at >= size && address < limit; count++, at += size, address += this.targetPageSize) {
      const word = ((bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!) >>> 0
      const high = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
      if (high * 0x100000000 + word !== address + low || (!page && bytes[at + 8] !== this.byte)) break
    }
    input.consume(count * size)
    return count
  }

  /** Bytes from the data of a page to that of the next one, where the next record continues the block. */
  get stride(): number {
    return 8 + this.targetPageSize
  }

  /** Judges a record's word and chooses what comes next. */
  #readWord(): string | undefined {
    const input = this.#input
    const low = input.be32(4)
    const flags = low & (this.targetPageSize - 1)
    this.#high = input.be32(0)
    this.#low = (low - flags) >>> 0
    this.address = this.#high * 0x100000000 + this.#low
    this.#flags = flags
    if ((flags & ~KNOWN_FLAGS) !== 0) return `a record with unknown flags 0x${flags.toString(16)}`
    if ((flags & RamFlag.Eos) !== 0) {
      if (flags !== RamFlag.Eos) return `a record with flags 0x${flags.toString(16)}: EOS stands alone`
      return this.address === 0 ? undefined : "an EOS record with an offset"
    }
    if ((flags & RamFlag.MemSize) !== 0) {
      if (flags !== RamFlag.MemSize) return `a record with flags 0x${flags.toString(16)}: MEM_SIZE stands alone`
      if (this.#phase === "postcopy") return "a block list in the post-copy phase"
      if (this.#phase === "section" && this.#listed) return "a second block list"
      this.total = input.be64Exact(0) & ~BigInt(this.targetPageSize - 1)
      this.#remaining = this.total
      this.#list = []
      this.#lengths = []
      this.#at = 8
      this.#stage = "list"
      return undefined
    }
    const kind = flags & (RamFlag.Compress | RamFlag.Page)
    if (kind === 0) return `a record with flags 0x${flags.toString(16)}: it has neither page nor fill byte`
    if (kind === (RamFlag.Compress | RamFlag.Page)) {
      return `a record with flags 0x${flags.toString(16)}: both page and fill byte`
    }
    if (this.#phase === "section") return "a page before the switchover"
    this.continued = (flags & RamFlag.Continue) !== 0
    if (!this.continued) {
      this.#stage = "name"
      return undefined
    }
    if (!this.#context) return "a record that continues a block, before any block was named"
    if (this.address >= this.#table.length) return this.#beyond()
    this.#at = 8
    this.#stage = "payload"
    return undefined
  }

  /** One entry of a block list; `undefined` when it was taken. */
  #readEntry(): Read | undefined {
    const input = this.#input
    const at = this.#at
    if (this.#list.length === MAX_BLOCKS) return this.#malformed(at, `more than ${MAX_BLOCKS} blocks`)
    if (input.available < at + 1) return Read.NeedMore
    const n = input.u8(at)
    if (n === 0) return this.#malformed(at, "the block's name is empty")
    if (input.available < at + 1 + n) return Read.NeedMore
    const idstr = decode(input, at + 1, n)
    if (idstr === undefined) return this.#malformed(at + 1, "the block's name is not UTF-8")
    const name = JSON.stringify(idstr)
    if (this.#names.has(idstr)) return this.#malformed(at + 1, `block ${name} is listed twice`)
    const given = this.#given?.find((block) => block.idstr === idstr)
    if (this.#given !== undefined && given === undefined) return this.#malformed(at + 1, `there is no block ${name}`)
    const unknown = this.#refuseBlock?.(idstr, undefined)
    if (unknown !== undefined) return this.#malformed(at + 1, unknown)
    if (input.available < at + 9 + n) return Read.NeedMore
    const length = input.be64Exact(at + 1 + n)
    if (length === 0n) return this.#malformed(at + 1 + n, `block ${name} has no bytes`)
    if (length > this.#remaining) {
      return this.#malformed(
        at + 1 + n,
        `block ${name} of ${length} bytes exceeds the announced total of ${this.total} bytes`
      )
    }
    const block: RamBlock = { idstr, length: Number(length) }
    if (given !== undefined && given.length !== block.length) {
      return this.#malformed(at + 1 + n, `block ${name} has ${length} bytes there and ${given.length} here`)
    }
    const refused = this.#refuseBlock?.(idstr, block.length)
    if (refused !== undefined) return this.#malformed(at + 1 + n, refused)
    this.#remaining -= length
    this.#names.add(idstr)
    this.#list.push(block)
    this.#lengths.push(length)
    this.#at = at + 9 + n
    return undefined
  }
  readonly #names = new Set<string>()

  #finishList(): Read {
    const absent = this.#given?.find((block) => !this.#names.has(block.idstr))
    if (absent !== undefined) return this.#malformed(0, `block ${JSON.stringify(absent.idstr)} is not in the list`)
    this.#names.clear()
    this.#listed = true
    this.blocks = this.#list
    this.lengths = this.#lengths
    if (this.#given === undefined) {
      this.#table = new BlockTable(this.#list)
      this.#context = false
    }
    this.#stage = "word"
    return this.#done(Read.MemSize)
  }

  #beyond(): string {
    return `offset ${this.address} is beyond block ${JSON.stringify(this.#table.idstr)} of ${this.#table.length} bytes`
  }

  #done(read: Read): Read {
    this.offset = this.#input.offset
    this.#input.consume(this.#at)
    return read
  }

  #malformed(at: number, problem: string): Read {
    this.offset = this.#input.offset + at
    this.problem = problem
    return Read.Malformed
  }
}
