/**
 * Which pages the source still has to send, and which of them come next: those that were asked for, those that are known to
 * be wanted soon, those around pages that were asked for, and then all others, going on behind the page last asked for. A
 * page is dirty until it is sent or given back; whoever takes it from a source of pages looks whether it still is.
 *
 * Hot path: no Effect per page.
 */
import { Bitmap } from "../protocol/Bitmap.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import { AskedPages } from "./AskedPages.ts"
import { type PageName, PageOrder } from "./PageOrder.ts"
import type { BlockState } from "./SenderLane.ts"

/** How far to run ahead of the guest, in target pages around each page asked for. */
export interface Prefault {
  readonly forward: number
  readonly backward: number
}

/** Where pages come from, as numbers over all blocks; -1 behind the last. */
export interface PageSource {
  readonly next: () => number
  /** Takes back the last `next`. */
  readonly unread: () => void
}

/** Units that the destination has whole need not be sent; one that it has a part of is sent again whole. */
const clearUnits = ({ dirty, unit }: BlockState, received: Bitmap): void => {
  for (let page = 0; page < dirty.length; page += unit) {
    const last = Math.min(page + unit, dirty.length)
    const missing = received.nextClear(page)
    if (missing >= 0 && missing < last) continue
    for (let one = page; one < last; one++) dirty.clear(one)
  }
}

export class SourcePages {
  readonly states: ReadonlyArray<BlockState>
  /** Pages of all blocks. */
  readonly total: number
  /** Pages that are to be sent. */
  dirty = 0
  readonly asked: AskedPages
  /** Around pages that were asked for. */
  readonly near: AskedPages
  readonly order: PageOrder
  readonly askedFor: PageSource
  readonly first: PageSource
  readonly nearby: PageSource
  readonly others: PageSource
  readonly #byName: ReadonlyMap<string, BlockState>
  readonly #prefault: Prefault

  /** `first`: pages that come before all that nobody asked for. Nothing is dirty yet. */
  constructor(
    blocks: ReadonlyArray<SourceBlock>,
    targetPageSize: number,
    first: ReadonlyArray<PageName>,
    prefault: Prefault
  ) {
    let total = 0
    this.states = blocks.map((block) => {
      const pages = Math.ceil(block.length / targetPageSize)
      const unit = Math.max(1, (block.hostPageSize ?? 0) / targetPageSize)
      const state = { block, dirty: new Bitmap(pages), base: total, unit }
      total += pages
      return state
    })
    this.total = total
    this.#byName = new Map(this.states.map((state) => [state.block.idstr, state]))
    this.#prefault = prefault
    const asked = this.asked = new AskedPages(total)
    const near = this.near = new AskedPages(total)
    const order = this.order = new PageOrder(this.states, first)
    this.askedFor = { next: () => asked.take(), unread: () => asked.unread() }
    this.first = { next: () => order.nextFirst(), unread: () => order.unreadFirst() }
    this.nearby = { next: () => near.take(), unread: () => near.unread() }
    this.others = { next: () => this.dirty > 0 ? order.next() : -1, unread: () => order.unread() }
  }

  /** Makes every page dirty but those that the destination has, a bitmap a block. */
  markAll(received: ReadonlyArray<Bitmap> | undefined): void {
    for (const [i, state] of this.states.entries()) {
      state.dirty.setAll()
      const there = received?.[i]
      if (there !== undefined) clearUnits(state, there)
      this.dirty += state.dirty.count
    }
  }

  named(idstr: string): BlockState | undefined {
    return this.#byName.get(idstr)
  }

  /** The block of a page in the numbering over all blocks. */
  blockOf(global: number): BlockState {
    let at = this.states.length - 1
    while (this.states[at]!.base > global) at--
    return this.states[at]!
  }

  sent(state: BlockState, page: number): void {
    if (state.dirty.testAndClear(page)) this.dirty--
  }

  /** The same for `count` pages from `first` on, all of which are dirty. */
  sentRun(state: BlockState, first: number, count: number): void {
    state.dirty.clearRun(first, count)
    this.dirty -= count
  }

  /** The guest waits for these: those that were not sent come next. The block must be one of these. */
  want(idstr: string, pages: ArrayLike<number>): void {
    const state = this.#byName.get(idstr)!
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!
      if (state.dirty.test(page)) this.asked.add(state.base + page)
    }
    if (pages.length > 0) this.goOnBehind(state, pages)
  }

  /** Runs ahead of the guest: pages around those asked for, and the others go on behind the last of them. */
  goOnBehind(state: BlockState, pages: ArrayLike<number>): void {
    const { backward, forward } = this.#prefault
    const last = state.dirty.length - 1
    const add = (page: number) => {
      if (page >= 0 && page <= last && state.dirty.test(page)) this.near.add(state.base + page)
    }
    for (let j = 1; j <= forward; j++) for (let i = 0; i < pages.length; i++) add(pages[i]! + j)
    for (let j = 1; j <= backward; j++) for (let i = 0; i < pages.length; i++) add(pages[i]! - j)
    this.order.goOn(state, Math.min(last, pages[pages.length - 1]! + forward))
  }

  /** The guest has given these back: how many of them are not to be sent any more. The block must be one of these. */
  giveUp(idstr: string, pages: ArrayLike<number>): number {
    const { dirty } = this.#byName.get(idstr)!
    let n = 0
    for (let i = 0; i < pages.length; i++) if (dirty.testAndClear(pages[i]!)) n++
    this.dirty -= n
    return n
  }
}
