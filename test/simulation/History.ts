/**
 * What the guest's memory must be, written down beside the memory itself: every write and every discard of every vCPU, in
 * the order in which they took effect. A read that differs is a lost or foreign page.
 *
 * While a range is being given back the guest may see either what was there or zeros; once it has seen zeros, what was
 * there must not come back.
 */
import type { Random } from "./Random.ts"

export class Violation extends Error {}

/** One block as the guest's history has it. */
export interface Record {
  readonly idstr: string
  readonly bytes: Uint8Array
  /** Discards under way, by page. */
  readonly discarding: Uint8Array
}

export class History {
  readonly pageSize: number
  readonly blocks: ReadonlyArray<Record>
  readonly #zeros: Uint8Array
  reads = 0

  constructor(blocks: ReadonlyArray<{ readonly idstr: string; readonly length: number }>, pageSize: number) {
    this.pageSize = pageSize
    this.#zeros = new Uint8Array(pageSize)
    this.blocks = blocks.map(({ idstr, length }) => {
      const pages = Math.ceil(length / pageSize)
      return { idstr, bytes: new Uint8Array(pages * pageSize), discarding: new Uint8Array(pages) }
    })
  }

  /** A guest's thread sees a page. */
  read(block: number, page: number, seen: Uint8Array): void {
    this.reads++
    const { bytes, discarding, idstr } = this.blocks[block]!
    const at = page * this.pageSize
    if (Buffer.compare(seen, bytes.subarray(at, at + this.pageSize)) === 0) return
    const zeros = Buffer.compare(seen, this.#zeros) === 0
    if (discarding[page]! > 0 && zeros) {
      bytes.fill(0, at, at + this.pageSize)
      return
    }
    throw new Violation(`the guest read ${zeros ? "zeros" : "foreign bytes"} in page ${page} of ${idstr}`)
  }

  /** A guest's thread writes, having seen the page. */
  write(block: number, page: number, offset: number, data: Uint8Array): void {
    this.blocks[block]!.bytes.set(data, page * this.pageSize + offset)
  }

  discardBegins(block: number, page: number): void {
    this.blocks[block]!.discarding[page]!++
  }
  /** The page is gone: what was written while it was being given back went with it. */
  discardEnds(block: number, page: number): void {
    const { bytes, discarding } = this.blocks[block]!
    discarding[page]!--
    bytes.fill(0, page * this.pageSize, (page + 1) * this.pageSize)
  }
}

/** Bytes for a write: sometimes the whole page of one byte, else a few that no other write has. */
export const draw = (random: Random, pageSize: number, room: number): { offset: number; data: Uint8Array } => {
  if (random.chance(0.25)) {
    return { offset: 0, data: new Uint8Array(room).fill(random.chance(0.4) ? 0 : random.below(256)) }
  }
  const length = Math.min(room, random.chance(0.3) ? pageSize : random.between(1, 24))
  const offset = random.below(room - length + 1)
  const data = new Uint8Array(length)
  let word = random.word()
  for (let i = 0; i < length; i++) {
    data[i] = word
    word = Math.imul(word, 0x9e3779b1) + 0x7f4a7c15 | 0
    word ^= word >>> 15
  }
  return { offset, data }
}
