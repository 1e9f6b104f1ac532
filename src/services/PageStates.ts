/**
 * One byte for each target page of a destination, over all blocks: what has become of it. The umem daemon writes it with
 * plain stores when a state changes, in memory that it shares with the guest's process; whoever draws a map of the
 * memory reads it from there, and the daemon never hears of it.
 *
 * Hot path: no Effect per page.
 */

/** The values of a byte. A memory that nobody has written to yet is missing altogether. */
export const State = { missing: 0, requested: 1, onDemand: 2, background: 3, removed: 4 } as const

/** Numbers of a cell, in this order; pages in none of these states are missing. */
export const COUNTED = ["requested", "onDemand", "background", "removed"] as const

export interface Cells {
  readonly pagesPerCell: number
  /** `COUNTED.length` numbers a cell. */
  readonly counts: Uint32Array
}

export class PageStates {
  /** Target pages. */
  readonly pages: number
  readonly #bytes: Uint8Array

  /** @throws RangeError when `buffer` has less than a byte for each page. */
  constructor(pages: number, buffer: ArrayBufferLike = new ArrayBuffer(pages)) {
    this.pages = pages
    this.#bytes = new Uint8Array(buffer, 0, pages)
  }

  /** How many target pages blocks have, each rounded up to whole pages. */
  static pagesOf(blocks: ReadonlyArray<{ readonly length: number }>, targetPageSize: number): number {
    return blocks.reduce((sum, { length }) => sum + Math.ceil(length / targetPageSize), 0)
  }

  requested(page: number): void {
    this.#bytes[page] = State.requested
  }

  /** The page is here: on demand if it was asked for. */
  received(page: number): void {
    this.#bytes[page] = this.#bytes[page] === State.requested ? State.onDemand : State.background
  }

  /** Pages are here that nobody asked for. */
  pushed(first: number, count: number): void {
    this.#bytes.fill(State.background, first, first + count)
  }

  /** The guest gave pages back: those that are not here will never be. */
  removed(first: number, count: number): void {
    const end = Math.min(first + count, this.pages)
    for (let page = first; page < end; page++) {
      if (this.#bytes[page]! < State.onDemand) this.#bytes[page] = State.removed
    }
  }

  /** The whole memory in at most `most` runs of equal length; the last one may be shorter. */
  cells(most: number): Cells {
    const pagesPerCell = Math.max(1, Math.ceil(this.pages / Math.max(1, most)))
    const counts = new Uint32Array(Math.ceil(this.pages / pagesPerCell) * COUNTED.length)
    for (let page = 0, cell = 0; page < this.pages; cell += COUNTED.length) {
      for (const end = Math.min(page + pagesPerCell, this.pages); page < end; page++) {
        const state = this.#bytes[page]!
        if (state !== State.missing) counts[cell + state - 1]! += 1
      }
    }
    return { pagesPerCell, counts }
  }
}
