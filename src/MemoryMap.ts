/**
 * Maps of a guest's memory for the live page and the report: what has become of its pages, in runs of equal length.
 * Made when somebody looks, from what is kept anyway.
 */
import type { Cells } from "./Observation.ts"
import type { Bitmap } from "./protocol/Bitmap.ts"
import { COUNTED, type PageStates } from "./services/PageStates.ts"

/** Packs the counts of cells as narrow as their largest possible value allows. */
const pack = (total: number, pagesPerCell: number, counts: Uint32Array): Cells => {
  const bits = pagesPerCell < 2 ** 8 ? 8 : pagesPerCell < 2 ** 16 ? 16 : 32
  const narrow = bits === 8 ? Uint8Array.from(counts) : bits === 16 ? Uint16Array.from(counts) : counts
  const bytes = Buffer.from(narrow.buffer, narrow.byteOffset, narrow.byteLength)
  return { total, pagesPerCell, bits, counts: bytes.toString("base64") }
}

/** A destination's, in at most `most` runs. */
export const arrived = (states: PageStates | undefined, most: number): Cells | undefined => {
  if (states === undefined) return undefined
  const { counts, pagesPerCell } = states.cells(most)
  return pack(states.pages, pagesPerCell, counts)
}

/**
 * A source's, by the pages of each block that are not sent. Whole words are counted, much faster than bits: the thread
 * that answers page requests must not be held up.
 */
export const sent = (unsent: ReadonlyArray<Bitmap>, most: number): Cells | undefined => {
  const total = unsent.reduce((sum, { length }) => sum + length, 0)
  if (total === 0) return undefined
  const pagesPerCell = Math.ceil(total / most / 32) * 32
  const counts = new Uint32Array(Math.ceil(total / pagesPerCell) * COUNTED.length)
  const background = COUNTED.indexOf("background")
  let base = 0
  for (const { length, words } of unsent) {
    for (let word = 0; word < words.length; word++) {
      const pages = Math.min(32, length - word * 32)
      const cell = Math.floor((base + word * 32) / pagesPerCell)
      counts[cell * COUNTED.length + background]! += pages - ones(words[word]!)
    }
    base += length
  }
  return pack(total, pagesPerCell, counts)
}

/** Set bits of a 32-bit word. */
const ones = (word: number): number => {
  let n = word - ((word >>> 1) & 0x55555555)
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333)
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
