/**
 * Captured bytes of one channel as plain objects, one a message, as `inspect --json` prints them. It decodes as the
 * receivers do, without knowing the guest: any block and page is taken. Memory is bounded by one message.
 */
import type { Decoder, Malformed, Outcome } from "../Decoder.ts"
import type { RamBlock } from "../RamBlock.ts"
import * as Pipe from "./Pipe.ts"
import * as RamStream from "./RamStream.ts"
import * as Request from "./Request.ts"
import * as Savevm from "./Savevm.ts"

export type Channel = "request" | "ram" | "pipe" | "savevm"

/** A message as JSON: `offset` is that of its first byte; numbers above 2^53 are decimal strings. */
export type InspectedMessage = Readonly<Record<string, unknown>> & { readonly offset: number }

export interface InspectError {
  readonly tag: "Truncated" | "Malformed"
  /** Of what is wrong; where the input ends too early, of the first byte of the message it ends in. */
  readonly offset: number
  readonly message: string
}

export interface Options {
  /** Lower-case hexadecimal SHA-256 of a page. */
  readonly sha256: (bytes: Uint8Array) => string
  /** `savevm`: payload bytes of device sections by name. */
  readonly devices?: Readonly<Record<string, number>>
}

export interface Inspector {
  /** The messages that these bytes complete. Nothing more comes once one was wrong. */
  readonly push: (bytes: Uint8Array) => ReadonlyArray<InspectedMessage>
  /** The error so far. */
  readonly error: () => InspectError | undefined
  /** No more bytes: the rest of the messages, and the error. */
  readonly finish: () => { readonly objects: ReadonlyArray<InspectedMessage>; readonly error?: InspectError }
}

const commands = ["INIT", "ON_DEMAND", "ON_DEMAND_CONT", "BACKGROUND", "BACKGROUND_CONT", "REMOVE", "EOC"]

const pipeTypes = {
  Ready: "READY",
  Quit: "QUIT",
  Error: "ERROR",
  TriggerPageFault: "TRIGGER_PAGE_FAULT",
  PageFaulted: "PAGE_FAULTED",
  PageUnmapped: "PAGE_UNMAPPED"
} as const

const wide = (n: bigint): number | string => n > BigInt(Number.MAX_SAFE_INTEGER) + 1n ? String(n) : Number(n)

const pageNumbers = (list: { readonly pages: Float64Array; readonly exactPages?: ReadonlyArray<bigint> }) =>
  list.exactPages === undefined ? Array.from(list.pages) : list.exactPages.map(wide)

const requestFields = (request: Request.Request): object => {
  const cmd = commands[request.cmd]
  if (request._tag === "Init" || request._tag === "Eoc") return { cmd }
  const named = request._tag === "OnDemand" || request._tag === "Background" || request._tag === "Remove"
  return { cmd, ...(named && { idstr: request.idstr }), pages: pageNumbers(request) }
}

const pipeFields = (message: Pipe.PipeMessage): object => ({
  type: pipeTypes[message._tag],
  from: message.from,
  ...("pages" in message && { pages: pageNumbers(message) })
})

const ramFields = (record: RamStream.RamRecord, sha256: Options["sha256"]): object => {
  switch (record._tag) {
    case "Eos":
      return { type: "eos" }
    case "MemSize": {
      const { blocks, exact, total } = record
      return {
        type: "memSize",
        total: exact === undefined ? total : wide(exact.total),
        blocks: blocks.map(({ idstr, length }, i) => ({
          idstr,
          length: exact === undefined ? length : wide(exact.lengths[i]!)
        }))
      }
    }
    default: {
      const { continued, exactAddress, idstr } = record
      const address = exactAddress === undefined ? record.address : wide(exactAddress)
      const content = record._tag === "Page" ? { sha256: sha256(record.data) } : { byte: record.byte }
      return {
        type: record._tag === "Page" ? "page" : "fill",
        idstr,
        address,
        ...content,
        ...(continued && { continue: true })
      }
    }
  }
}

const savevmFields = (message: Savevm.SavevmMessage, sha256: Options["sha256"]): object | undefined => {
  switch (message._tag) {
    case "Header":
      return { type: "header", version: message.version }
    case "Section": {
      const { instance, kind, name, sectionId, version } = message
      return { type: kind, section: sectionId, name, instance, version }
    }
    case "Ram":
      return ramFields(message.record, sha256)
    case "Eof":
      return { type: "eof" }
    // Payloads belong to the section's own line.
    case "Block":
    case "Device":
      return undefined
  }
}

/** Something that gives messages as fields until it has no more. */
interface Stage {
  readonly decoder: Decoder<unknown>
  readonly next: () => Outcome<object | undefined>
}

const stage = <A>(decoder: Decoder<A>, fields: (message: A) => object | undefined): Stage => ({
  decoder,
  next: () => {
    const outcome = decoder.next()
    return outcome._tag === "Message" ? { ...outcome, message: fields(outcome.message) } : outcome
  }
})

/** Decodes one channel. */
export const inspect = (channel: Channel, { devices, sha256 }: Options): Inspector => {
  let blocks: ReadonlyArray<RamBlock> | undefined
  let failure: Malformed | undefined
  let current: Stage
  switch (channel) {
    case "request":
      current = stage(Request.decoder(), requestFields)
      break
    case "pipe":
      current = stage(Pipe.decoder({ from: "any" }), pipeFields)
      break
    case "ram":
      current = stage(RamStream.decoder({ phase: "any" }), (record) => ramFields(record, sha256))
      break
    case "savevm": {
      const decoder = Savevm.decoder(devices === undefined ? {} : { devices: new Map(Object.entries(devices)) })
      current = stage(decoder, (message) => {
        if (message._tag === "Ram" && message.record._tag === "MemSize") blocks = message.record.blocks
        return savevmFields(message, sha256)
      })
    }
  }

  /** After the switchover: the page stream, with the block list that preceded it. */
  const beyond = (offset: number): Stage => {
    const rest = current.decoder.remainder()
    const decoder = RamStream.decoder({ phase: "postcopy", offset, ...(blocks !== undefined && { blocks }) })
    decoder.push(rest)
    return stage(decoder, (record) => ramFields(record, sha256))
  }

  const drain = (): Array<InspectedMessage> => {
    const objects: Array<InspectedMessage> = []
    while (true) {
      const outcome = current.next()
      if (outcome._tag === "Malformed") failure = outcome
      if (outcome._tag !== "Message") return objects
      const fields = outcome.message
      if (fields === undefined) continue
      objects.push({ offset: outcome.offset, ...fields })
      if ("type" in fields && fields.type === "eof") current = beyond(outcome.offset + 1)
    }
  }

  const error = (): InspectError | undefined =>
    failure && { tag: failure.truncated ? "Truncated" : "Malformed", offset: failure.offset, message: failure.message }

  return {
    push: (bytes) => {
      current.decoder.push(bytes)
      return drain()
    },
    error,
    finish: () => {
      current.decoder.finish()
      const objects = drain()
      const wrong = error()
      return wrong === undefined ? { objects } : { objects, error: wrong }
    }
  }
}
