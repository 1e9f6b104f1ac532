/** What the forward stream is made of, item by item, in the order of the bytes. */
import type { QemuBlock } from "./QemuBlock.ts"
import type { Range, SectionHeader } from "./Stream.ts"

interface InBlock {
  readonly idstr: string
  /** Byte offset in the block, a multiple of the target page size. */
  readonly address: number
  /** Whether the record had CONTINUE instead of a name. */
  readonly continued: boolean
}

export type RamRecord =
  /** `data` is a view of the decoder's buffer: valid until the next `push` or `next`. */
  | (InBlock & { readonly _tag: "Page"; readonly data: Uint8Array })
  | (InBlock & { readonly _tag: "Zero"; readonly byte: number })
  /** A delta against the page's last content (`Xbzrle.apply`); a view, as a page's data. */
  | (InBlock & { readonly _tag: "Xbzrle"; readonly delta: Uint8Array })
  /** A page packed by zlib; a view, as a page's data. */
  | (InBlock & { readonly _tag: "CompressPage"; readonly packed: Uint8Array })
  | { readonly _tag: "MemSize"; readonly total: number; readonly blocks: ReadonlyArray<QemuBlock> }
  | { readonly _tag: "Eos" }

export type CommandItem =
  | { readonly _tag: "OpenReturnPath" }
  | { readonly _tag: "Ping"; readonly value: number }
  /** Without sizes post-copy is meant for dirty bitmaps alone. */
  | { readonly _tag: "PostcopyAdvise"; readonly sizes?: { readonly pageSizes: number; readonly target: number } }
  | { readonly _tag: "PostcopyListen" }
  | { readonly _tag: "PostcopyRun" }
  | { readonly _tag: "PostcopyRamDiscard"; readonly idstr: string; readonly ranges: ReadonlyArray<Range> }
  /** A copy. */
  | { readonly _tag: "Packaged"; readonly bytes: Uint8Array }
  | { readonly _tag: "EnableColo" }
  | { readonly _tag: "PostcopyResume" }
  | { readonly _tag: "RecvBitmap"; readonly idstr: string }

export interface Subsection {
  readonly name: string
  readonly version: number
  readonly body: Uint8Array
}

export type StreamItem =
  | { readonly _tag: "Header" }
  | {
    readonly _tag: "Configuration"
    readonly machine: string
    readonly subsections: ReadonlyArray<Subsection>
    /** The whole record, a copy. */
    readonly bytes: Uint8Array
  }
  | ({ readonly _tag: "SectionStart" } & SectionHeader)
  | { readonly _tag: "SectionPart" | "SectionEnd" | "Footer"; readonly id: number }
  | RamRecord
  | CommandItem
  /** Every device section of a stream that ended as precopy, a copy. */
  | { readonly _tag: "DeviceState"; readonly bytes: Uint8Array }
  | { readonly _tag: "Eof" }
  /** The JSON text, a copy. */
  | { readonly _tag: "VmDescription"; readonly text: Uint8Array }
