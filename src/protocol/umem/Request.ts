/**
 * The request channel, destination to source: which pages a thread waits for, which are wanted ahead, which need not be
 * sent any more, and the end of connection (EOC). A message is a command byte, for most a block name, be32 count, and
 * that many be64 page indexes relative to the block, in target pages. The CONT forms leave the name out and mean the
 * block of the last ON_DEMAND or BACKGROUND; REMOVE always names its block and does not change that context.
 */
import { Command, MAX_NAME_BYTES, MAX_PAGE_NR } from "./Constants.ts"
import { NameCache } from "./Names.ts"

/** Pages of a block; `idstr` of a CONT message is the context's, resolved by the decoder. */
export interface PageRequest {
  readonly _tag: "OnDemand" | "OnDemandCont" | "Background" | "BackgroundCont" | "Remove"
  /** The command byte as it was sent. */
  readonly cmd: number
  readonly idstr: string
  /** Indexes of target pages within the block, in order; repetitions are possible. */
  readonly pages: Float64Array
  /** Only from a decoder without blocks, and only if an index is above 2^53: all of them, exact. */
  readonly exactPages?: ReadonlyArray<bigint>
}

export type Request =
  | { readonly _tag: "Init"; readonly cmd: number }
  | PageRequest
  | { readonly _tag: "Eoc"; readonly cmd: number }

/** Largest message this side sends: command, name of 255 bytes, count and 4063 pages. */
export const MAX_MESSAGE_BYTES = 1 + 1 + MAX_NAME_BYTES + 4 + MAX_PAGE_NR * 8

/** One message exactly as given, with no context, splitting or refusal of an empty list: for fixtures and tests. */
export interface RawMessage {
  /** 0…6. */
  readonly cmd: number
  /** For ON_DEMAND, BACKGROUND and REMOVE. */
  readonly idstr?: string
  readonly pages?: ArrayLike<number>
}

const names = new NameCache()

const putList = (into: Uint8Array, at: number, pages: ArrayLike<number>, from: number, count: number): number => {
  into[at++] = count >>> 24
  into[at++] = count >>> 16
  into[at++] = count >>> 8
  into[at++] = count
  for (let i = from; i < from + count; i++) {
    const page = pages[i]!
    const high = Math.floor(page / 0x100000000)
    into[at++] = high >>> 24
    into[at++] = high >>> 16
    into[at++] = high >>> 8
    into[at++] = high
    into[at++] = page >>> 24
    into[at++] = page >>> 16
    into[at++] = page >>> 8
    into[at++] = page
  }
  return at
}

/** The bytes of one message. */
export const encode = ({ cmd, idstr, pages }: RawMessage): Uint8Array => {
  const name = idstr === undefined ? undefined : names.get(idstr)
  const out = new Uint8Array(1 + (name?.length ?? 0) + (pages === undefined ? 0 : 4 + pages.length * 8))
  out[0] = cmd
  let at = 1
  if (name !== undefined) {
    out.set(name, at)
    at += name.length
  }
  if (pages !== undefined) putList(out, at, pages, 0, pages.length)
  return out
}

export const init = (): Uint8Array => Uint8Array.of(Command.Init)
export const eoc = (): Uint8Array => Uint8Array.of(Command.Eoc)

export type Kind = "onDemand" | "background" | "remove"

/**
 * Encodes the requests of one connection: it knows the last block, and chooses between a named message and a CONT.
 * More than 4063 pages become several messages; an empty list becomes none.
 */
export interface Encoder {
  /** Bytes that `write` would take now. */
  readonly size: (kind: Kind, idstr: string, count: number) => number
  /**
   * Hot path: writes the messages for the first `count` of `pages` into `into` at `at`; bytes written, or -1 when they
   * do not fit, with nothing changed.
   */
  readonly write: (
    into: Uint8Array,
    at: number,
    kind: Kind,
    idstr: string,
    pages: ArrayLike<number>,
    count: number
  ) => number
  /** The block that a CONT would mean. */
  readonly continuing: () => string | undefined
  readonly onDemand: (idstr: string, pages: ArrayLike<number>) => Uint8Array
  readonly background: (idstr: string, pages: ArrayLike<number>) => Uint8Array
  readonly remove: (idstr: string, pages: ArrayLike<number>) => Uint8Array
  readonly init: () => Uint8Array
  readonly eoc: () => Uint8Array
}

export const encoder = (): Encoder => {
  let context: string | undefined

  const size = (kind: Kind, idstr: string, count: number): number => {
    if (count === 0) return 0
    const messages = Math.ceil(count / MAX_PAGE_NR)
    const named = kind === "remove" ? messages : idstr === context ? 0 : 1
    return messages * 5 + named * names.get(idstr).length + count * 8
  }

  const write: Encoder["write"] = (into, start, kind, idstr, pages, count) => {
    if (count === 0) return 0
    const bytes = size(kind, idstr, count)
    if (start + bytes > into.length) return -1
    const name = names.get(idstr)
    let at = start
    for (let from = 0; from < count; from += MAX_PAGE_NR) {
      if (kind === "remove" || idstr !== context) {
        into[at++] = kind === "remove" ? Command.Remove : kind === "onDemand" ? Command.OnDemand : Command.Background
        into.set(name, at)
        at += name.length
        if (kind !== "remove") context = idstr
      } else into[at++] = kind === "onDemand" ? Command.OnDemandCont : Command.BackgroundCont
      at = putList(into, at, pages, from, Math.min(MAX_PAGE_NR, count - from))
    }
    return bytes
  }

  const whole = (kind: Kind, idstr: string, pages: ArrayLike<number>): Uint8Array => {
    const out = new Uint8Array(size(kind, idstr, pages.length))
    write(out, 0, kind, idstr, pages, pages.length)
    return out
  }

  return {
    size,
    write,
    continuing: () => context,
    onDemand: (idstr, pages) => whole("onDemand", idstr, pages),
    background: (idstr, pages) => whole("background", idstr, pages),
    remove: (idstr, pages) => whole("remove", idstr, pages),
    init,
    eoc
  }
}

export { decoder, type DecoderOptions } from "./RequestDecoder.ts"
