/**
 * The RAM page stream, source to destination: a be64 word (byte offset in the block, flags in the bits below the page
 * size), then what the flags say: a block name unless CONTINUE, a page of T bytes or the byte that fills it, or a list
 * of blocks. EOS ends a savevm section; after the switchover the stream is pages and exactly one EOS.
 */
import type { Decoder, End, Malformed, Message } from "../Decoder.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import type { RamBlock } from "../RamBlock.ts"
import { MAX_NAME_BYTES, RamFlag, TARGET_PAGE_SIZE } from "./Constants.ts"
import { encode, NameCache } from "./Names.ts"
import { RamReader, Read, type ReaderOptions } from "./RamReader.ts"

interface InBlock {
  readonly idstr: string
  /** Byte offset in the block, a multiple of the page size. */
  readonly address: number
  /** Only without blocks, and only if the offset is above 2^53. */
  readonly exactAddress?: bigint
  /** Whether the record had CONTINUE instead of a name. */
  readonly continued: boolean
}

export interface Page extends InBlock {
  readonly _tag: "Page"
  /** A view of the decoder's buffer: valid until the next `push` or `next`. */
  readonly data: Uint8Array
}

export interface Fill extends InBlock {
  readonly _tag: "Fill"
  readonly byte: number
}

export interface MemSize {
  readonly _tag: "MemSize"
  /** Bytes of all blocks. */
  readonly total: number
  readonly blocks: ReadonlyArray<RamBlock>
  /** The same, exact, only if the total is above 2^53. */
  readonly exact?: { readonly total: bigint; readonly lengths: ReadonlyArray<bigint> }
}

export type RamRecord = Page | Fill | MemSize | { readonly _tag: "Eos" }

/** Bytes of a record but its page data, at most: word, name, and the byte of a fill. */
export const MAX_RECORD_HEADER = 8 + 1 + MAX_NAME_BYTES + 1

/** The same of a record that continues its block, without a fill's byte: the word alone. */
export const CONTINUED_HEADER = 8

/** Bytes of one page record, at most. */
export const maxRecordBytes = (targetPageSize: number): number => MAX_RECORD_HEADER + targetPageSize

/** Takes a 64 KiB read and the rest of a record without moving anything. */
const BUFFER_BYTES = 128 * 1024

export interface DecoderOptions extends ReaderOptions {
  /** Offset of the first byte, where the stream is a part of a longer one. Default 0. */
  readonly offset?: number
}

/** The record a reader has just found, as a value. */
export const record = (reader: RamReader, read: Read, bytes: Uint8Array): RamRecord => {
  const { address, blocks, byte, continued, idstr } = reader
  switch (read) {
    case Read.Page: {
      const data = bytes.subarray(reader.dataAt, reader.dataAt + reader.targetPageSize)
      if (address <= Number.MAX_SAFE_INTEGER) return { _tag: "Page", idstr, address, data, continued }
      return { _tag: "Page", idstr, address, exactAddress: reader.exactAddress(), data, continued }
    }
    case Read.Fill:
      if (address <= Number.MAX_SAFE_INTEGER) return { _tag: "Fill", idstr, address, byte, continued }
      return { _tag: "Fill", idstr, address, exactAddress: reader.exactAddress(), byte, continued }
    case Read.MemSize: {
      const { lengths, total } = reader
      if (total <= Number.MAX_SAFE_INTEGER) return { _tag: "MemSize", total: Number(total), blocks }
      return { _tag: "MemSize", total: Number(total), blocks, exact: { total, lengths } }
    }
    default:
      return { _tag: "Eos" }
  }
}

class RamDecoder extends IncrementalDecoder<RamRecord> {
  protected readonly what = "a RAM record"
  private readonly reader: RamReader

  constructor(options: DecoderOptions) {
    super(options.offset ?? 0, BUFFER_BYTES)
    this.reader = new RamReader(this.input, options)
  }

  protected atBoundary(): boolean {
    return this.reader.idle
  }

  protected step(): Message<RamRecord> | Malformed | End | undefined {
    const { reader } = this
    const read = reader.next()
    if (read === Read.NeedMore) return undefined
    if (read === Read.Malformed) {
      return { _tag: "Malformed", offset: reader.offset, message: reader.problem, truncated: false }
    }
    return { _tag: "Message", offset: reader.offset, message: record(reader, read, this.input.bytes) }
  }
}

/** A decoder of records as values; for a loop over pages use {@link RamReader} itself. */
export const decoder = (options: DecoderOptions): Decoder<RamRecord> => new RamDecoder(options)

const putWord = (into: Uint8Array, at: number, address: number, flags: number): void => {
  const high = Math.floor(address / 0x100000000)
  const low = address | flags
  into[at] = high >>> 24
  into[at + 1] = high >>> 16
  into[at + 2] = high >>> 8
  into[at + 3] = high
  into[at + 4] = low >>> 24
  into[at + 5] = low >>> 16
  into[at + 6] = low >>> 8
  into[at + 7] = low
}

/** The record that lists all blocks, in the order given. Lengths are multiples of the page size. */
export const memSize = (blocks: ReadonlyArray<RamBlock>): Uint8Array => {
  const names = blocks.map(({ idstr }) => encode(idstr))
  const out = new Uint8Array(names.reduce((sum, name) => sum + name.length + 8, 8))
  putWord(out, 0, blocks.reduce((sum, { length }) => sum + length, 0), RamFlag.MemSize)
  let at = 8
  for (const [i, name] of names.entries()) {
    out.set(name, at)
    putWord(out, at + name.length, blocks[i]!.length, 0)
    at += name.length + 8
  }
  return out
}

/** The word that ends a section, or the stream. */
export const eos = (): Uint8Array => {
  const out = new Uint8Array(8)
  putWord(out, 0, 0, RamFlag.Eos)
  return out
}

/**
 * Encodes the records of one direction of one connection: a name is left out where the last record had the same block.
 * Addresses are multiples of the page size, and `into` has room: {@link maxRecordBytes}.
 */
export interface Encoder {
  /** Writes what precedes a page's data; bytes written. The caller puts the page behind it. */
  readonly page: (into: Uint8Array, at: number, idstr: string, address: number) => number
  /** Writes the record of a page that repeats `byte`; bytes written. */
  readonly fill: (into: Uint8Array, at: number, idstr: string, address: number, byte: number) => number
  readonly eos: (into: Uint8Array, at: number) => number
  /** Forgets the last block: the next record names its own. */
  readonly reset: () => void
  /** Bytes of one record, at most. */
  readonly maxRecordBytes: number
}

export const encoder = ({ targetPageSize = TARGET_PAGE_SIZE }: { readonly targetPageSize?: number } = {}): Encoder => {
  const names = new NameCache()
  let last: string | undefined

  const header = (into: Uint8Array, at: number, idstr: string, address: number, flag: number): number => {
    if (idstr === last) {
      putWord(into, at, address, flag | RamFlag.Continue)
      return 8
    }
    const name = names.get(idstr)
    putWord(into, at, address, flag)
    into.set(name, at + 8)
    last = idstr
    return 8 + name.length
  }

  return {
    page: (into, at, idstr, address) => header(into, at, idstr, address, RamFlag.Page),
    fill: (into, at, idstr, address, byte) => {
      const n = header(into, at, idstr, address, RamFlag.Compress)
      into[at + n] = byte
      return n + 1
    },
    eos: (into, at) => {
      putWord(into, at, 0, RamFlag.Eos)
      return 8
    },
    reset: () => {
      last = undefined
    },
    maxRecordBytes: maxRecordBytes(targetPageSize)
  }
}
