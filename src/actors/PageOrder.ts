/**
 * The order of pages that nobody has asked for: first those that are known to be wanted soon, then block by block. The
 * bitmaps say what is left; this only says where to look next.
 */
import type { BlockState } from "./SenderLane.ts"

export interface PageName {
  readonly idstr: string
  readonly page: number
}

export class PageOrder {
  readonly #states: ReadonlyArray<BlockState>
  readonly #first: ReadonlyArray<number>
  #firstAt = 0
  #block = 0
  #page = 0

  /** Pages of `first` that no block has are left out. */
  constructor(states: ReadonlyArray<BlockState>, first: ReadonlyArray<PageName>) {
    this.#states = states
    this.#first = first.flatMap(({ idstr, page }) => {
      const state = states.find(({ block }) => block.idstr === idstr)
      return state !== undefined && page < state.dirty.length ? [state.base + page] : []
    })
  }

  /** Whether {@link nextFirst} has more to give. */
  get hasFirst(): boolean {
    return this.#firstAt < this.#first.length
  }

  /** The next of the pages that come first, sent already or not; -1 behind the last. */
  nextFirst(): number {
    return this.#first[this.#firstAt++] ?? -1
  }

  /** Takes back the last {@link nextFirst}. */
  unreadFirst(): void {
    this.#firstAt--
  }

  /** The next page that is not sent, in the numbering over all blocks. There must be one. */
  next(): number {
    while (true) {
      const state = this.#states[this.#block]!
      const page = state.dirty.nextSet(this.#page)
      if (page >= 0) {
        this.#page = page + 1
        return state.base + page
      }
      this.#block = (this.#block + 1) % this.#states.length
      this.#page = 0
    }
  }

  /** Takes back the last {@link next}. */
  unread(): void {
    this.#page--
  }

  /** The page that {@link next} would look at, if it is of this block; else one behind its last. */
  cursorIn(state: BlockState): number {
    return this.#states[this.#block] === state ? this.#page : state.dirty.length
  }

  /** Goes on at this page: behind one that was asked for, the next ones will be. */
  goOn(state: BlockState, page: number): void {
    this.#block = this.#states.indexOf(state)
    this.#page = page
  }
}
