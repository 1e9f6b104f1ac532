/**
 * The received bitmap of a block as a recovery carries it: little-endian bit order, target page p in byte p >> 3 under
 * mask 1 << (p & 7), padded with zeros to whole 64-bit words.
 */
import { Bitmap } from "../Bitmap.ts"

/** Bytes that the bitmap of so many pages takes. */
export const bytesFor = (pages: number): number => Math.ceil(pages / 64) * 8

export const encode = (bitmap: Bitmap): Uint8Array => {
  const out = new Uint8Array(bytesFor(bitmap.length))
  for (let page = bitmap.nextSet(0); page >= 0; page = bitmap.nextSet(page + 1)) out[page >> 3]! |= 1 << (page & 7)
  return out
}

/** Bits past the last page are ignored: a destination may pad with either. */
export const decode = (bytes: Uint8Array, pages: number): Bitmap => {
  const bitmap = new Bitmap(pages)
  for (let page = 0; page < pages; page++) {
    const byte = bytes[page >> 3]!
    if (byte === 0) page |= 7
    else if ((byte & (1 << (page & 7))) !== 0) bitmap.set(page)
  }
  return bitmap
}
