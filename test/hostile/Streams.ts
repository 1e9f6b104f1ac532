/** Legal streams of every format, drawn by chance and a little beyond what is legal: what the mutations start from. */
import * as Wire from "../e2e/Wire.ts"
import type { Random } from "./Random.ts"

export type Format = "request" | "ram" | "section" | "pipe" | "savevm" | "bitmapList"

/** Pages of the fuzzed decoders and ends: small, so that an input holds more records; every size is decoded alike. */
export const SMALL_PAGE = 256

/** Bytes of device state that are taken. */
export const MAX_GUEST_STATE = 4096

export interface Streams {
  /** Two blocks whose lengths differ by a power of two, and one of a single page. */
  readonly blocks: ReadonlyArray<Wire.Block>
  /** A stream of one format. */
  readonly stream: (format: Format, random: Random) => Uint8Array
  /** What a source sends up to its switchover: rounds, sections and ids as they may come. */
  readonly savevm: (random: Random) => Uint8Array
  /** The page stream after the switchover. */
  readonly pageStream: (random: Random) => Uint8Array
  /** What a destination asks for. */
  readonly requests: (random: Random) => Uint8Array
}

/** The streams of a guest of 73 pages of this size. */
export const of = (pageSize: number): Streams => {
  const blocks: ReadonlyArray<Wire.Block> = [
    { idstr: "pc.ram", length: 64 * pageSize },
    { idstr: "vga.vram", length: 8 * pageSize },
    { idstr: "0000:00:03.0/rom", length: pageSize }
  ]

  const anyBlock = (random: Random): Wire.Block =>
    random.oneIn(40)
      ? { idstr: random.pick(["pc.ra", "pc.ram2", "bogus", "vga"]), length: 4 * pageSize }
      : random.pick(blocks)

  /** A page of the block, or in one of three hundred cases one at or beyond its end. */
  const anyPage = (block: Wire.Block, random: Random): number => {
    const pages = block.length / pageSize
    return random.oneIn(300) ? random.pick([pages, pages + 1, 2 ** 32, 2 ** 53]) : random.below(pages)
  }

  const anyCount = (random: Random): number => {
    const kind = random.below(100)
    return kind < 90 ? random.below(6) : kind < 99 ? random.below(80) : random.pick([0, 4063, 4095, 4096])
  }

  /** As a rule the first one names a block, for without it nothing that continues one is legal. */
  const request = (random: Random, first: boolean): Uint8Array => {
    const command = random.below(12)
    if (command === 0) return Wire.INIT
    if (command === 1 && random.oneIn(3)) return Wire.EOC
    const block = anyBlock(random)
    const pages = Array.from({ length: anyCount(random) }, () => anyPage(block, random))
    const cmd = first && !random.oneIn(10) ? random.pick([1, 3] as const) : (1 + random.below(5)) as Wire.Command
    return Wire.request(cmd, cmd === 2 || cmd === 4 ? undefined : block.idstr, pages)
  }

  const requests = (random: Random): Uint8Array => many(random, request)

  /** A page of the stream, whose content tells the block and page unless it is drawn to be uniform. */
  const record = (random: Random, first: boolean): Uint8Array => {
    const block = anyBlock(random)
    const offset = anyPage(block, random) * pageSize
    const idstr = random.oneIn(first ? 10 : 2) ? undefined : block.idstr
    if (random.oneIn(3)) return Wire.fill(idstr, offset, random.pick([0, 0, 1, 255]))
    const bytes = new Uint8Array(pageSize).fill(random.below(256))
    bytes[random.below(pageSize)] = random.below(256)
    return Wire.page(idstr, offset, bytes)
  }

  /** Every page once, in order, as a source does that sends everything. */
  const whole = (random: Random): Uint8Array => {
    const records: Array<Uint8Array> = []
    for (const { idstr, length } of blocks) {
      for (let offset = 0; offset < length; offset += pageSize) {
        records.push(Wire.fill(offset === 0 ? idstr : undefined, offset, random.below(3)))
      }
    }
    return Buffer.concat(records)
  }

  const many = (random: Random, one: (random: Random, first: boolean) => Uint8Array): Uint8Array =>
    Buffer.concat(Array.from({ length: 1 + random.below(8) }, (_, i) => one(random, i === 0)))

  const pageStream = (random: Random): Uint8Array => {
    const records = random.oneIn(6) ? whole(random) : many(random, record)
    return random.oneIn(3) ? records : Buffer.concat([records, Wire.EOS])
  }

  const list = (random: Random): Uint8Array => {
    const listed = random.oneIn(20) ? blocks.slice(0, 2) : random.oneIn(2) ? blocks : blocks.toReversed()
    return random.oneIn(30) ? Wire.memSize(listed, 80 * pageSize) : Wire.memSize(listed)
  }

  const section = (random: Random): Uint8Array => {
    const sizes = random.oneIn(2) ? [list(random)] : []
    return Buffer.concat([...sizes, Wire.EOS, ...(random.oneIn(10) ? [record(random, true)] : [])])
  }

  const savevm = (random: Random): Uint8Array => {
    const ram = random.pick([0, 1, 2, 2 ** 32 - 1])
    const out: Array<Uint8Array> = [random.oneIn(40) ? Wire.header(2) : Wire.header()]
    const withBlock = random.oneIn(3)
    if (withBlock) out.push(Wire.start(77, "block", 1), Wire.NO_BLOCKS)
    out.push(Wire.start(ram, "ram", random.oneIn(40) ? 3 : 4), ...(random.oneIn(30) ? [] : [list(random)]), Wire.EOS)
    for (let n = random.below(3); n > 0; n--) {
      if (withBlock) out.push(Wire.part(77), Wire.NO_BLOCKS)
      out.push(Wire.part(ram), Wire.EOS)
    }
    if (withBlock) out.push(Wire.end(77), Wire.NO_BLOCKS)
    out.push(Wire.end(ram), Wire.EOS)
    if (!random.oneIn(5)) {
      const length = random.oneIn(20) ? random.pick([0, MAX_GUEST_STATE, MAX_GUEST_STATE + 1]) : random.below(64)
      out.push(Wire.full(3, random.oneIn(40) ? "dev0" : "guest", 1), Wire.deviceState(random.bytes(length)))
    }
    if (!random.oneIn(8)) out.push(Wire.EOF)
    return Buffer.concat(out)
  }

  const le64 = (value: number): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(BigInt(value))
    return bytes
  }

  /** Messages of one side, with one of the other's now and then. */
  const pipeMessage = (from: "daemon" | "guest") => (random: Random): Uint8Array => {
    const bytes = random.oneIn(20) ? "RrQqETtu" : from === "daemon" ? "RQETTT" : "rqttuu"
    const byte = bytes.charAt(random.below(bytes.length))
    if (!"Ttu".includes(byte)) return Buffer.from(byte)
    const count = random.oneIn(20) ? random.pick([0, 255, 256, 257, 4094, 4095]) : 1 + random.below(5)
    return Buffer.concat([
      Buffer.from(byte),
      le64(count),
      ...Array.from({ length: count }, () => le64(random.oneIn(20) ? 2 ** 53 : random.below(80)))
    ])
  }

  const stream = (format: Format, random: Random): Uint8Array => {
    switch (format) {
      case "request":
        return requests(random)
      case "ram":
        return pageStream(random)
      case "section":
        return section(random)
      case "pipe":
        return many(random, pipeMessage(random.oneIn(2) ? "daemon" : "guest"))
      case "savevm":
        return savevm(random)
      case "bitmapList":
        return new Uint8Array(random.pick([0, 24, 25, 26]))
    }
  }

  return { blocks, stream, savevm, pageStream, requests }
}

/** Those of the fuzzed decoders and ends. */
export const small: Streams = of(SMALL_PAGE)
export const { blocks } = small
