/**
 * RAM blocks as both dialects know them: a name and a length. Names are unique within a guest and compared whole
 * (2011 code compared prefixes); offsets are bytes from the start of the block.
 */

export interface RamBlock {
  /** 1…255 bytes of UTF-8. */
  readonly idstr: string
  /** Bytes, a multiple of the target page size. */
  readonly length: number
}
