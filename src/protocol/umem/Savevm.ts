/**
 * The savevm framing of the precopy phase: magic and version, one START per live section, PART and END of it, one FULL
 * per device, and the EOF byte, which is the switchover. Payloads have no length of their own, so a section that is not
 * known cannot be skipped. The helpers here return pieces that a sender concatenates; the decoder is their inverse.
 *
 *   header  START ram [blocks EOS]  PART ram [EOS]  END ram [EOS]  FULL guest [be32 length, bytes]  00  page records…
 */
import type { RamBlock } from "../RamBlock.ts"
import { BLOCK_EOS, SAVEVM_MAGIC, SAVEVM_VERSION, Section } from "./Constants.ts"
import { encode } from "./Names.ts"
import { eos, memSize, type RamRecord } from "./RamStream.ts"

/** What START and FULL say of a section. */
export interface SectionHeader {
  /** Chosen by the sender, unique within the stream: PART and END refer to it. */
  readonly sectionId: number
  readonly name: string
  readonly instance: number
  readonly version: number
}

export interface SectionMessage extends SectionHeader {
  readonly _tag: "Section"
  readonly kind: "start" | "part" | "end" | "full"
}

export type SavevmMessage =
  | { readonly _tag: "Header"; readonly version: number }
  | SectionMessage
  /** A record of a `ram` section: the block list or an end of section. */
  | { readonly _tag: "Ram"; readonly record: RamRecord }
  /** The payload word of a `block` section. */
  | { readonly _tag: "Block" }
  /** The payload of a FULL section; for `guest` without its length. The bytes are the receiver's own. */
  | {
    readonly _tag: "Device"
    readonly name: string
    readonly instance: number
    readonly version: number
    readonly data: Uint8Array
  }
  /** The switchover. What follows is the post-copy phase: take it with `remainder`. */
  | { readonly _tag: "Eof" }

const be32 = (n: number): Uint8Array => Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n)

/** The pieces in one array. */
export const concat = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const piece of pieces) {
    out.set(piece, at)
    at += piece.length
  }
  return out
}

/** Magic and version. */
export const header = (): Uint8Array => concat([be32(SAVEVM_MAGIC), be32(SAVEVM_VERSION)])

const announced = (type: number, { instance, name, sectionId, version }: SectionHeader): Uint8Array =>
  concat([Uint8Array.of(type), be32(sectionId), encode(name), be32(instance), be32(version)])

/** Begins a live section; its payload follows. */
export const start = (section: SectionHeader): Uint8Array => announced(Section.Start, section)
/** A section that is sent once; its payload follows. */
export const full = (section: SectionHeader): Uint8Array => announced(Section.Full, section)
/** A round of a live section; its payload follows. */
export const part = (sectionId: number): Uint8Array => concat([Uint8Array.of(Section.Part), be32(sectionId)])
/** The last round of a live section; its payload follows. */
export const end = (sectionId: number): Uint8Array => concat([Uint8Array.of(Section.End), be32(sectionId)])
/** The switchover's byte. */
export const eof = (): Uint8Array => Uint8Array.of(Section.Eof)

/** Payload of START `ram`: the block list and the end of section. */
export const ramSizes = (blocks: ReadonlyArray<RamBlock>): Uint8Array => concat([memSize(blocks), eos()])
/** Payload of PART and END `ram`: the end of section. */
export const ramEnd = (): Uint8Array => eos()
/** Payload of the sections of `block` where no disk travels along. */
export const blockEnd = (): Uint8Array => concat([be32(0), be32(BLOCK_EOS)])
/** Payload of FULL `guest`: be32 length and the device state. */
export const guestState = (state: Uint8Array): Uint8Array => concat([be32(state.length), state])

/** Options of a later dialect's start marker, which stands right after the header (2012-10 and later). */
export interface PostcopyInit {
  /** Bit 0 of the options word: rounds of precopy came before. */
  readonly precopy: boolean
}

/** `10 00`, be32 length 8, be64 options. */
export const postcopyInit = ({ precopy }: PostcopyInit): Uint8Array =>
  concat([Uint8Array.of(Section.Postcopy, 0), be32(8), be32(0), be32(precopy ? 1 : 0)])

/** The inverse of {@link postcopyInit}; `undefined` for bytes that are not exactly one, or options that are unknown. */
export const decodePostcopyInit = (bytes: Uint8Array): PostcopyInit | undefined => {
  for (const precopy of [false, true]) {
    const expected = postcopyInit({ precopy })
    if (bytes.length === expected.length && expected.every((byte, i) => byte === bytes[i])) return { precopy }
  }
  return undefined
}

export { decoder, type DecoderOptions } from "./SavevmDecoder.ts"
