/**
 * What the source's actors need of a wire format, and all they know of it: how a page becomes a record, how the page
 * stream ends, and what a destination can ask for. `umem/` is the dialect of 2011, `qemu/` that of today's QEMU. Records
 * are encoded into the caller's buffer, a burst at a time, so that an implementation may be native.
 */
import type { Decoder } from "./Decoder.ts"
import type { RamBlock } from "./RamBlock.ts"

/** Encodes the records of one connection. Addresses are bytes in the block, multiples of the target page size. */
export interface PageEncoder {
  /** Writes what precedes a page's data; bytes written. The caller puts the page behind it. */
  readonly page: (into: Uint8Array, at: number, idstr: string, address: number) => number
  /** Whether {@link fill} can say this byte; where not, the page travels whole. */
  readonly fills: (byte: number) => boolean
  /** Writes the record of a page that repeats `byte`; bytes written. */
  readonly fill: (into: Uint8Array, at: number, idstr: string, address: number, byte: number) => number
  /**
   * Set where a burst of pages can be encoded at once: {@link fill} can say every byte, and what precedes a page (or its
   * byte) has so many bytes where the record before it was of the same block.
   */
  readonly continuedBytes?: number
  /** Writes what ends the page stream; bytes written. Only once no page is missing, or the destination needs none. */
  readonly end: (into: Uint8Array, at: number) => number
  /** Bytes that `end` writes, at most. */
  readonly endBytes: number
  /** Bytes of a record but its page data, at most. */
  readonly headerBytes: number
}

/** Pages of a block: wanted now, wanted ahead, or not needed any more. Indexes are target pages within the block. */
export interface PagesAsked {
  readonly _tag: "OnDemand" | "OnDemandCont" | "Background" | "BackgroundCont" | "Remove"
  readonly idstr: string
  readonly pages: ArrayLike<number>
}

export type SourceRequest =
  /** A sign of life. */
  | { readonly _tag: "Init" }
  | PagesAsked
  /** End of connection: the destination has what it needs. */
  | { readonly _tag: "Eoc" }
  /** The destination says that its side failed. */
  | { readonly _tag: "Failed"; readonly detail: string }

/** Decodes requests. Where `continuing` is there, simple requests may be answered before they reach it. */
export interface RequestDecoder extends Decoder<SourceRequest> {
  /** The block that a request without a name means, if the next byte begins a request. */
  readonly continuing?: () => string | undefined
  /** So many bytes of whole requests were taken elsewhere. */
  readonly passed?: (bytes: number) => void
}

/**
 * The simple case of a dialect: a request is `command`, be32 count and be64 page numbers of the block of the one before
 * it, a page a be64 (its offset in the block and flags) and its bytes, or the one byte that it repeats.
 */
export interface SimpleExchange {
  /** Undefined where requests look otherwise. */
  readonly command?: number
  readonly pageFlags: number
  readonly fillFlags: number
}

export interface Dialect {
  readonly name: "umem" | "qemu"
  readonly encoder: (options: { readonly targetPageSize: number }) => PageEncoder
  readonly requests: (options: {
    readonly blocks: ReadonlyArray<RamBlock>
    readonly targetPageSize: number
  }) => RequestDecoder
  /** Set where requests and pages have that simple case. */
  readonly simple?: SimpleExchange
  /** Whether a destination may end the connection while pages are unsent: it has removed them, or does not want them. */
  readonly mayEndEarly: boolean
}
