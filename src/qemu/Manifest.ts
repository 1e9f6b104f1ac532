/**
 * What an image says of itself (`manifest.json`): the machine, its blocks, and a checksum of every other file. Written
 * last, so that a directory without it is no image.
 */
import * as Schema from "effect/Schema"

export const FORMAT = "postcopy-qemu-image"
export const VERSION = 1

const Digest = Schema.Struct({
  /** Bytes. */
  length: Schema.Int,
  sha256: Schema.String
})

export const Block = Schema.Struct({
  idstr: Schema.String,
  /** Bytes. */
  length: Schema.Int,
  /** Bytes of a page where it was captured: 4096, or that of the huge pages. */
  pageSize: Schema.Int,
  /** Where the block begins in `memory`. */
  offset: Schema.Int,
  /** Pages of it that are not zero: those that `memory` holds. */
  stored: Schema.Int
})
export type Block = typeof Block.Type

export const Manifest = Schema.Struct({
  format: Schema.Literal(FORMAT),
  version: Schema.Literal(VERSION),
  /** `pc-i440fx-7.2`: a destination must be the same. */
  machine: Schema.String,
  /** The configuration record as it came, base64. */
  configuration: Schema.String,
  /** QEMU that it was captured from; null when that was not known. */
  qemu: Schema.NullOr(Schema.String),
  vcpus: Schema.NullOr(Schema.Int),
  createdAt: Schema.String,
  /** `paused`: the guest stood still · `live`: it ran on · `relayed`: kept on the way between two QEMUs. */
  captured: Schema.Literals(["paused", "live", "relayed"]),
  /** State of the guest before the capture. */
  guestWas: Schema.NullOr(Schema.String),
  /** Capabilities of the migration that it was captured by. */
  capabilities: Schema.Array(Schema.String),
  blocks: Schema.Array(Block),
  /** `devices`: every device section, as it came. */
  devices: Digest,
  /** `pages`: a bit for each page of all blocks, set where `memory` holds it; the others are zero. */
  pages: Digest,
  /** `memory`: `length` is the file's, with its holes; the checksum covers the pages that are held, in order. */
  memory: Digest,
  /** Device sections, where the stream described them. */
  sections: Schema.NullOr(Schema.Array(Schema.Struct({
    idstr: Schema.String,
    instance: Schema.Int,
    version: Schema.Int,
    bytes: Schema.Int
  })))
})
export type Manifest = typeof Manifest.Type

export const decode = Schema.decodeUnknownOption(Manifest)

/** Names of the files of an image. */
export const files = { manifest: "manifest.json", devices: "devices", pages: "pages", memory: "memory" } as const
