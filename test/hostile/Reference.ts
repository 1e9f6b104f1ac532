/**
 * The wire formats once more, the plain way: whole inputs, field by field, from the specification and nothing of `src`.
 * What a decoder takes, refuses or finds too short must be what this takes, refuses or finds too short.
 */
import type { Block } from "../e2e/Wire.ts"

export type Verdict = "end" | "truncated" | "malformed"

export interface Parsed<A> {
  readonly messages: ReadonlyArray<A>
  readonly verdict: Verdict
  /** Bytes consumed by whole messages. */
  readonly consumed: number
}

const SHORT = Symbol("short")
const BAD = Symbol("bad")

class Cursor {
  at = 0
  readonly bytes: Uint8Array
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
  take(length: number): Uint8Array {
    if (this.at + length > this.bytes.length) throw SHORT
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }
  number(width: number, little = false): bigint {
    let value = 0n
    const bytes = this.take(width)
    for (let i = 0; i < width; i++) value = (value << 8n) | BigInt(bytes[little ? width - 1 - i : i]!)
    return value
  }
  u8 = () => Number(this.number(1))
  be32 = () => Number(this.number(4))
  be64 = () => this.number(8)
  name(): string {
    const length = this.u8()
    return Buffer.from(this.take(no(length === 0, length))).toString("latin1")
  }
}

/** The value, unless the condition holds: then the input is malformed. */
const no = <A>(bad: boolean, value: A): A => {
  if (bad) throw BAD
  return value
}

const parse = <A>(
  bytes: Uint8Array,
  step: (cursor: Cursor) => A | undefined,
  atBoundary = () => true
): Parsed<A> => {
  const cursor = new Cursor(bytes)
  const messages: Array<A> = []
  let consumed = 0
  try {
    while (cursor.at < bytes.length) {
      const message = step(cursor)
      if (message === undefined) break
      messages.push(message)
      consumed = cursor.at
    }
    return { messages, verdict: atBoundary() ? "end" : "truncated", consumed }
  } catch (thrown) {
    if (thrown !== SHORT && thrown !== BAD) throw thrown
    return { messages, verdict: thrown === SHORT ? "truncated" : "malformed", consumed }
  }
}

const find = (blocks: ReadonlyArray<Block>, idstr: string): Block =>
  blocks.find((block) => block.idstr === idstr) ?? no(true, blocks[0]!)

export interface Request {
  readonly cmd: number
  readonly idstr: string
  readonly pages: ReadonlyArray<number>
}

/** Requests, of target pages of `pageSize` bytes. */
export const requests = (bytes: Uint8Array, blocks: ReadonlyArray<Block>, pageSize: number): Parsed<Request> => {
  let context: Block | undefined
  let over = false
  return parse(bytes, (cursor) => {
    no(over, 0)
    const cmd = no(cursor.bytes[cursor.at]! > 6, cursor.u8())
    if (cmd === 0 || cmd === 6) {
      over = cmd === 6
      return { cmd, idstr: "", pages: [] }
    }
    const named = cmd === 1 || cmd === 3 || cmd === 5
    if (!named) no(context === undefined, 0)
    const block = named ? find(blocks, cursor.name()) : context!
    if (named && cmd !== 5) context = block
    const nr = cursor.be32()
    no(nr > 4095, 0)
    const pages: Array<number> = []
    for (let i = 0; i < nr; i++) {
      const page = cursor.be64()
      pages.push(no(page * BigInt(pageSize) >= BigInt(block.length), Number(page)))
    }
    return { cmd, idstr: block.idstr, pages }
  })
}

export type Record =
  | { readonly kind: "page"; readonly idstr: string; readonly page: number; readonly data: Uint8Array }
  | { readonly kind: "fill"; readonly idstr: string; readonly page: number; readonly byte: number }
  | { readonly kind: "sizes"; readonly blocks: ReadonlyArray<Block> }
  | { readonly kind: "eos" }

/** One record; `context` is where CONTINUE finds its block. */
const ramRecord = (
  cursor: Cursor,
  blocks: ReadonlyArray<Block>,
  pageSize: number,
  phase: "section" | "postcopy",
  context: { block: Block | undefined; listed: boolean }
): Record => {
  const word = cursor.be64()
  const flags = Number(word & BigInt(pageSize - 1))
  const offset = word - BigInt(flags)
  if (flags === 0x10) return no(offset !== 0n, { kind: "eos" })
  if (flags === 0x04) {
    no(phase === "postcopy" || context.listed, 0)
    context.listed = true
    const list: Array<Block> = []
    for (let left = offset; left > 0n;) {
      const { idstr, length } = find(blocks, cursor.name())
      no(list.some((block) => block.idstr === idstr), 0)
      const announced = cursor.be64()
      no(announced !== BigInt(length) || announced > left, 0)
      left -= announced
      list.push({ idstr, length })
    }
    return no(list.length < blocks.length, { kind: "sizes", blocks: list })
  }
  no(flags !== 0x08 && flags !== 0x28 && flags !== 0x02 && flags !== 0x22, 0)
  no(phase === "section", 0)
  if ((flags & 0x20) === 0) context.block = find(blocks, cursor.name())
  const block = context.block ?? no(true, blocks[0]!)
  no(offset >= BigInt(block.length), 0)
  const page = Number(offset) / pageSize
  return (flags & 0x08) !== 0
    ? { kind: "page", idstr: block.idstr, page, data: cursor.take(pageSize) }
    : { kind: "fill", idstr: block.idstr, page, byte: cursor.u8() }
}

/** The page stream after the switchover. */
export const pageStream = (bytes: Uint8Array, blocks: ReadonlyArray<Block>, pageSize: number): Parsed<Record> => {
  const context = { block: undefined, listed: false }
  let over = false
  return parse(bytes, (cursor) => {
    no(over, 0)
    const record = ramRecord(cursor, blocks, pageSize, "postcopy", context)
    over = record.kind === "eos"
    return record
  })
}

/** What may stand in RAM sections before the switchover, without their framing. */
export const section = (bytes: Uint8Array, blocks: ReadonlyArray<Block>, pageSize: number): Parsed<Record> => {
  const context = { block: undefined, listed: false }
  return parse(bytes, (cursor) => ramRecord(cursor, blocks, pageSize, "section", context))
}

export interface SavevmItem {
  readonly kind: string
  readonly data?: Uint8Array
}

/** The savevm framing up to its EOF byte; what lies behind it is not consumed. */
export const savevm = (
  bytes: Uint8Array,
  blocks: ReadonlyArray<Block>,
  pageSize: number,
  maxGuestState: number
): Parsed<SavevmItem> => {
  const sections = new Map<number, { readonly name: string; over: boolean }>()
  const context = { block: undefined, listed: false }
  let stage = "header"
  return parse(bytes, (cursor): SavevmItem | undefined => {
    switch (stage) {
      case "over":
        return undefined
      case "header":
        for (const byte of [0x51, 0x45, 0x56, 0x4d]) no(cursor.u8() !== byte, 0)
        no(cursor.be32() !== 3, 0)
        stage = "type"
        return { kind: "header" }
      case "ram": {
        const { kind } = ramRecord(cursor, blocks, pageSize, "section", context)
        if (kind === "eos") stage = "type"
        return { kind }
      }
      case "block":
        no(cursor.be64() !== 2n, 0)
        stage = "type"
        return { kind: "block" }
      case "guest": {
        const length = cursor.be32()
        no(length > maxGuestState, 0)
        const data = cursor.take(length)
        stage = "type"
        return { kind: "guest", data }
      }
    }
    const type = cursor.u8()
    no(type > 4, 0)
    if (type === 0) {
      stage = "over"
      return { kind: "eof" }
    }
    const id = cursor.be32()
    if (type === 2 || type === 3) {
      const section = sections.get(id)
      if (section === undefined || section.name === "guest" || section.over) throw BAD
      section.over = type === 3
      stage = section.name
      return { kind: "section" }
    }
    no(sections.has(id), 0)
    const name = cursor.name()
    no(!(type === 1 ? ["ram", "block"] : ["guest"]).includes(name), 0)
    no(cursor.be32() !== 0, 0)
    no([...sections.values()].some((section) => section.name === name), 0)
    no(cursor.be32() !== (name === "ram" ? 4 : 1), 0)
    sections.set(id, { name, over: false })
    stage = name
    return { kind: "section" }
  }, () => stage === "header" || stage === "type" || stage === "over")
}

export interface PipeItem {
  readonly byte: string
  readonly pages: ReadonlyArray<bigint>
}

/** The daemon channel, of one side. */
export const pipe = (bytes: Uint8Array, from: "daemon" | "guest"): Parsed<PipeItem> =>
  parse(bytes, (cursor) => {
    const byte = String.fromCharCode(cursor.u8())
    no(!(from === "daemon" ? "RQET" : "rqtu").includes(byte), 0)
    if (!"Ttu".includes(byte)) return { byte, pages: [] }
    const nr = cursor.number(8, true)
    no(nr === 0n || nr > (byte === "u" ? 4094n : 256n), 0)
    return { byte, pages: Array.from({ length: Number(nr) }, () => cursor.number(8, true)) }
  })
