/**
 * The channel between the umem daemon and the guest's process, one byte a message, some followed by h64 count and that
 * many h64 page numbers in the host's byte order. Page numbers are global: over all blocks, in host pages. A list of no
 * pages is never sent and refused.
 *
 *   daemon to guest:  R ready   T touch these pages   Q quit   E error
 *   guest to daemon:  r ready   t touched             q quit   u unmapped
 */
import type { Decoder, End, Malformed, Message } from "../Decoder.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import { MAX_PIPE_PAGES, MAX_UNMAPPED_PAGES, WINDOW_BYTES } from "./Constants.ts"

export type Side = "daemon" | "guest"

export interface PageList {
  readonly _tag: "TriggerPageFault" | "PageFaulted" | "PageUnmapped"
  readonly from: Side
  /** Global host page numbers, at least one. */
  readonly pages: Float64Array
  /** Only if a number is above 2^53: all of them, exact. */
  readonly exactPages?: ReadonlyArray<bigint>
}

export type PipeMessage = { readonly _tag: "Ready" | "Quit" | "Error"; readonly from: Side } | PageList

export type Endian = "little" | "big"

const bytes = {
  Ready: ["R", "r"],
  Quit: ["Q", "q"],
  Error: ["E"],
  TriggerPageFault: ["T"],
  PageFaulted: ["", "t"],
  PageUnmapped: ["", "u"]
} as const

const kinds = new Map<number, { readonly _tag: PipeMessage["_tag"]; readonly from: Side }>()
for (const [tag, [daemon, guest]] of Object.entries(bytes) as Array<[PipeMessage["_tag"], ReadonlyArray<string>]>) {
  if (daemon) kinds.set(daemon.charCodeAt(0), { _tag: tag, from: "daemon" })
  if (guest) kinds.set(guest.charCodeAt(0), { _tag: tag, from: "guest" })
}

export const ready = (from: Side): Uint8Array => Uint8Array.of(from === "daemon" ? 0x52 : 0x72)
export const quit = (from: Side): Uint8Array => Uint8Array.of(from === "daemon" ? 0x51 : 0x71)
/** From the daemon: pages will not come. */
export const error = (): Uint8Array => Uint8Array.of(0x45)

/** Messages of at most 256 pages each; none for no pages. */
const lists = (byte: number, pages: ArrayLike<number>, endian: Endian): Uint8Array => {
  const messages = Math.ceil(pages.length / MAX_PIPE_PAGES)
  const out = new Uint8Array(messages * 9 + pages.length * 8)
  const view = new DataView(out.buffer)
  const little = endian === "little"
  let at = 0
  const put = (n: number) => {
    view.setUint32(little ? at : at + 4, n >>> 0, little)
    view.setUint32(little ? at + 4 : at, Math.floor(n / 0x100000000), little)
    at += 8
  }
  for (let from = 0; from < pages.length; from += MAX_PIPE_PAGES) {
    const count = Math.min(MAX_PIPE_PAGES, pages.length - from)
    out[at++] = byte
    put(count)
    for (let i = from; i < from + count; i++) put(pages[i]!)
  }
  return out
}

/** From the daemon: touch these pages, they are there. */
export const triggerPageFault = (pages: ArrayLike<number>, endian: Endian = "little"): Uint8Array =>
  lists(0x54, pages, endian)
/** From the guest: the pages of a TRIGGER_PAGE_FAULT were touched. */
export const pageFaulted = (pages: ArrayLike<number>, endian: Endian = "little"): Uint8Array =>
  lists(0x74, pages, endian)
/** From the guest: these pages were given back. The caller keeps one call within one block. */
export const pageUnmapped = (pages: ArrayLike<number>, endian: Endian = "little"): Uint8Array =>
  lists(0x75, pages, endian)

export interface DecoderOptions {
  /** Whose messages are expected; `any` for captures. */
  readonly from: Side | "any"
  /** Default little: the order of every host that is supported. */
  readonly endian?: Endian
}

class PipeDecoder extends IncrementalDecoder<PipeMessage> {
  protected readonly what = "a message"
  private readonly from: Side | "any"
  private readonly little: boolean
  /** The list under way. */
  private pages: Float64Array | undefined
  private filled = 0
  private wide = false

  constructor({ endian = "little", from }: DecoderOptions) {
    super(0, WINDOW_BYTES)
    this.from = from
    this.little = endian === "little"
  }

  protected atBoundary(): boolean {
    return true
  }

  protected step(): Message<PipeMessage> | Malformed | End | undefined {
    const { input } = this
    if (input.available < 1) return undefined
    const byte = input.u8(0)
    const kind = kinds.get(byte)
    if (kind === undefined || (this.from !== "any" && this.from !== kind.from)) {
      return this.malformed(
        0,
        `unknown message 0x${byte.toString(16).padStart(2, "0")}${this.from === "any" ? "" : ` from the ${this.from}`}`
      )
    }
    const { _tag, from } = kind
    if (_tag === "Ready" || _tag === "Quit" || _tag === "Error") return this.message(1, { _tag, from })
    if (this.pages === undefined) {
      if (input.available < 9) return undefined
      const nr = this.h64(1)
      const most = _tag === "PageUnmapped" ? MAX_UNMAPPED_PAGES : MAX_PIPE_PAGES
      if (nr === 0) return this.malformed(1, "a list of no pages")
      if (nr > most) return this.malformed(1, `${this.h64Exact(1)} pages in one message: at most ${most} are possible`)
      this.pages = new Float64Array(nr)
      this.filled = 0
      this.wide = false
    }
    const { pages } = this
    const arrived = Math.min(pages.length, Math.floor((input.available - 9) / 8))
    for (; this.filled < arrived; this.filled++) {
      const page = this.h64(9 + this.filled * 8)
      if (page > Number.MAX_SAFE_INTEGER) this.wide = true
      pages[this.filled] = page
    }
    if (arrived < pages.length) return undefined
    this.pages = undefined
    const size = 9 + pages.length * 8
    if (!this.wide) return this.message(size, { _tag, from, pages })
    return this.message(size, { _tag, from, pages, exactPages: Array.from(pages, (_, i) => this.h64Exact(9 + i * 8)) })
  }

  private h64(at: number): number {
    return this.little ? this.le32(at + 4) * 0x100000000 + this.le32(at) : this.input.be64(at)
  }

  private h64Exact(at: number): bigint {
    return this.input.be64Exact(at, this.little)
  }

  private le32(at: number): number {
    const { input } = this
    return (input.u8(at) | (input.u8(at + 1) << 8) | (input.u8(at + 2) << 16) | (input.u8(at + 3) << 24)) >>> 0
  }

  private message(size: number, message: PipeMessage): Message<PipeMessage> {
    const offset = this.input.offset
    this.input.consume(size)
    return { _tag: "Message", offset, message }
  }
}

export const decoder = (options: DecoderOptions): Decoder<PipeMessage> => new PipeDecoder(options)
