/**
 * Encodes the forward stream, source to destination: header, configuration, sections, commands. Page records are those
 * of the dialect of 2011 (`umem/RamStream.ts`), which QEMU has kept. {@link opening} is all that precedes the pages of a
 * restored guest, {@link resuming} and {@link ending} what stands around the pages that follow a recovery.
 *
 *   header configuration OPEN_RETURN_PATH PING 1 ADVISE START(ram: block list) DISCARD… PING 2
 *   PACKAGED{ LISTEN devices PING 3 RUN } PING 4 PART(ram) pages … EOS END(ram) EOS EOF
 */
import type { PageEncoder } from "../Dialect.ts"
import * as RamStream from "../umem/RamStream.ts"
import { Bytes } from "./Bytes.ts"
import {
  Command,
  MAGIC,
  MAX_DISCARD_RANGES,
  Ping,
  RAM_SECTION,
  RAM_VERSION,
  RamFlag,
  Record,
  TARGET_PAGE_SIZE,
  VERSION
} from "./Constants.ts"
import { pageSizes, type QemuBlock } from "./QemuBlock.ts"

/** Bytes `[start, start + length)` of a block, multiples of the page size. */
export interface Range {
  readonly start: number
  readonly length: number
}

export const header = (): Uint8Array => new Bytes().u32(MAGIC).u32(VERSION).done()

/** The configuration record of a machine without subsections. */
export const configuration = (machine: string, subsections: Uint8Array = new Uint8Array(0)): Uint8Array => {
  const name = new TextEncoder().encode(machine)
  return new Bytes().u8(Record.Configuration).u32(name.length).raw(name).raw(subsections).done()
}

export interface SectionHeader {
  readonly id: number
  readonly idstr: string
  readonly instance: number
  readonly version: number
}

const section = (type: number, { id, idstr, instance, version }: SectionHeader): Uint8Array =>
  new Bytes().u8(type).u32(id).name(idstr).u32(instance).u32(version).done()

export const sectionStart = (header: SectionHeader): Uint8Array => section(Record.SectionStart, header)
export const sectionFull = (header: SectionHeader): Uint8Array => section(Record.SectionFull, header)
export const sectionPart = (id: number): Uint8Array => new Bytes().u8(Record.SectionPart).u32(id).done()
export const sectionEnd = (id: number): Uint8Array => new Bytes().u8(Record.SectionEnd).u32(id).done()
export const footer = (id: number): Uint8Array => new Bytes().u8(Record.Footer).u32(id).done()
export const eof = (): Uint8Array => Uint8Array.of(Record.Eof)

/** The JSON text that describes the device state of a stream that ended as precopy. */
export const vmDescription = (text: Uint8Array): Uint8Array =>
  new Bytes().u8(Record.VmDescription).u32(text.length).raw(text).done()

const command = (number: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array =>
  new Bytes().u8(Record.Command).u16(number).u16(payload.length).raw(payload).done()

export const openReturnPath = (): Uint8Array => command(Command.OpenReturnPath)
export const ping = (value: number): Uint8Array => command(Command.Ping, new Bytes().u32(value).done())
export const postcopyAdvise = (sizes: number): Uint8Array =>
  command(Command.PostcopyAdvise, new Bytes().u64(sizes).u64(TARGET_PAGE_SIZE).done())
export const postcopyListen = (): Uint8Array => command(Command.PostcopyListen)
export const postcopyRun = (): Uint8Array => command(Command.PostcopyRun)
export const postcopyResume = (): Uint8Array => command(Command.PostcopyResume)
export const recvBitmap = (idstr: string): Uint8Array => command(Command.RecvBitmap, new Bytes().name(idstr).done())

/** As many commands as the ranges need. */
export const postcopyRamDiscard = (idstr: string, ranges: ReadonlyArray<Range>): Uint8Array => {
  const out = new Bytes()
  for (let from = 0; from < ranges.length; from += MAX_DISCARD_RANGES) {
    const payload = new Bytes().u8(0).name(idstr).u8(0)
    for (const { length, start } of ranges.slice(from, from + MAX_DISCARD_RANGES)) payload.u64(start).u64(length)
    out.raw(command(Command.PostcopyRamDiscard, payload.done()))
  }
  return out.done()
}

/** The bytes of a package follow its command and are not counted in it. */
export const packaged = (bytes: Uint8Array): Uint8Array =>
  new Bytes().raw(command(Command.Packaged, new Bytes().u32(bytes.length).done())).raw(bytes).done()

/** The block list; a page size stands only where it is not the usual one. */
export const memSize = (blocks: ReadonlyArray<QemuBlock>): Uint8Array => {
  const total = blocks.reduce((sum, { length }) => sum + length, 0)
  const out = new Bytes().u64(total + RamFlag.MemSize)
  for (const { idstr, length, pageSize } of blocks) {
    out.name(idstr).u64(length)
    if (pageSize !== TARGET_PAGE_SIZE) out.u64(pageSize)
  }
  return out.done()
}

/** What a guest is restored from. */
export interface Snapshot {
  /** The configuration record, as it came. */
  readonly configuration: Uint8Array
  readonly blocks: ReadonlyArray<QemuBlock>
  /** Every device section, from its type byte to its footer, as they came. */
  readonly devices: Uint8Array
}

const part = () => sectionPart(RAM_SECTION)

/** Everything that precedes the pages. Each block is discarded whole: none of its pages has been sent. */
export const opening = ({ blocks, configuration, devices }: Snapshot): Uint8Array => {
  const out = new Bytes()
    .raw(header())
    .raw(configuration)
    .raw(openReturnPath())
    .raw(ping(Ping.Opened))
    .raw(postcopyAdvise(pageSizes(blocks)))
    .raw(sectionStart({ id: RAM_SECTION, idstr: "ram", instance: 0, version: RAM_VERSION }))
    .raw(memSize(blocks))
    .raw(RamStream.eos())
    .raw(footer(RAM_SECTION))
  for (const { idstr, length } of blocks) out.raw(postcopyRamDiscard(idstr, [{ start: 0, length }]))
  const inner = new Bytes().raw(postcopyListen()).raw(devices).raw(ping(Ping.Loaded)).raw(postcopyRun()).done()
  return out.raw(ping(Ping.Discarded)).raw(packaged(inner)).raw(ping(Ping.Listening)).raw(part()).done()
}

/** What precedes the pages after a recovery's handshake. */
export const resuming = part

/** What follows the last page: the only bytes that end a migration, and only once no page is missing. */
export const ending = (): Uint8Array =>
  new Bytes().raw(RamStream.eos()).raw(footer(RAM_SECTION)).raw(sectionEnd(RAM_SECTION)).raw(RamStream.eos())
    .raw(footer(RAM_SECTION)).raw(eof()).done()

/** A word with address and flags: what precedes a page of the block of the one before it. */
const CONTINUED_BYTES = 8

/** Page records of one channel. QEMU takes only zero as a fill byte to be sure of. */
export const pageEncoder = (end: Uint8Array): PageEncoder => {
  const { fill, page } = RamStream.encoder({ targetPageSize: TARGET_PAGE_SIZE })
  return {
    page,
    fill,
    fills: (byte) => byte === 0,
    // Only of pages that are zero, or whole: an image knows no others.
    continuedBytes: CONTINUED_BYTES,
    end: (into, at) => {
      into.set(end, at)
      return end.length
    },
    endBytes: end.length,
    headerBytes: RamStream.MAX_RECORD_HEADER
  }
}
