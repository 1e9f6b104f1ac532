/**
 * The wire format of 2011 as a foreign peer knows it: an encoder and a reader of its own, made from the specification
 * and nothing of this project.
 */
import { once } from "node:events"
import type { Duplex } from "node:stream"

export const PAGE = 4096

export interface Block {
  readonly idstr: string
  readonly length: number
}

export const be32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const be64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

const u8 = (value: number) => Buffer.of(value)

const name = (idstr: string) => Buffer.concat([u8(Buffer.byteLength(idstr)), Buffer.from(idstr)])

/** be32 magic, be32 version. */
export const header = (version = 3, magic = 0x5145564d): Buffer => Buffer.concat([be32(magic), be32(version)])

const described = (type: number) => (id: number, section: string, version: number) =>
  Buffer.concat([u8(type), be32(id), name(section), be32(0), be32(version)])

export const start = described(1)
export const full = described(4)
export const part = (id: number): Buffer => Buffer.concat([u8(2), be32(id)])
export const end = (id: number): Buffer => Buffer.concat([u8(3), be32(id)])
export const EOF = u8(0)
export const EOS = be64(0x10)
/** All that a `block` section ever holds. */
export const NO_BLOCKS = be64(2)

export const memSize = (
  blocks: ReadonlyArray<Block>,
  total = blocks.reduce((sum, { length }) => sum + length, 0)
): Buffer => Buffer.concat([be64(total + 4), ...blocks.flatMap(({ idstr, length }) => [name(idstr), be64(length)])])

export const deviceState = (bytes: Uint8Array): Buffer => Buffer.concat([be32(bytes.length), bytes])

/** A page record; without a name it continues the block of the one before. */
export const page = (idstr: string | undefined, offset: number, bytes: Uint8Array): Buffer =>
  idstr === undefined
    ? Buffer.concat([be64(offset + 0x28), bytes])
    : Buffer.concat([be64(offset + 0x08), name(idstr), bytes])

/** A page of one repeated byte. */
export const fill = (idstr: string | undefined, offset: number, byte: number): Buffer =>
  idstr === undefined
    ? Buffer.concat([be64(offset + 0x22), u8(byte)])
    : Buffer.concat([be64(offset + 0x02), name(idstr), u8(byte)])

export type Command = 1 | 2 | 3 | 4 | 5

/** A page request or REMOVE (5); 2 and 4 have no name. */
export const request = (command: Command, idstr: string | undefined, pages: ReadonlyArray<number>): Buffer =>
  Buffer.concat([
    u8(command),
    ...(idstr === undefined ? [] : [name(idstr)]),
    be32(pages.length),
    ...pages.map(be64)
  ])

export const INIT = u8(0)
export const EOC = u8(6)

/** Exact reads from a stream. */
export interface Reader {
  /** Exactly `length` bytes; fails when the stream ends before. */
  readonly read: (length: number) => Promise<Buffer>
  readonly u8: () => Promise<number>
  readonly be32: () => Promise<number>
  readonly be64: () => Promise<number>
  readonly name: () => Promise<string>
  /** What comes until the peer closes. */
  readonly rest: () => Promise<Buffer>
}

export const reader = (stream: Duplex): Reader => {
  let buffered: Buffer = Buffer.alloc(0)
  let over = false
  stream.on("data", (chunk: Buffer) => {
    buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk])
    stream.emit("progress")
  })
  const finish = () => {
    over = true
    stream.emit("progress")
  }
  stream.on("end", finish).on("close", finish).on("error", finish)
  const take = (length: number) => {
    const taken = buffered.subarray(0, length)
    buffered = buffered.subarray(length)
    return taken
  }
  const read = async (length: number) => {
    while (buffered.length < length) {
      if (over) throw new Error(`the stream ended ${length - buffered.length} bytes too early`)
      await once(stream, "progress")
    }
    return take(length)
  }
  const be64 = async () => Number((await read(8)).readBigUInt64BE())
  const u8 = async () => (await read(1)).readUInt8()
  return {
    read,
    u8,
    be32: async () => (await read(4)).readUInt32BE(),
    be64,
    name: async () => (await read(await u8())).toString(),
    rest: async () => {
      while (!over) await once(stream, "progress")
      return take(buffered.length)
    }
  }
}
