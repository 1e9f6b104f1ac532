/**
 * Pages that were asked for and are not sent, in the order they were asked for. A page is in it at most once, so it is
 * never longer than the guest has pages.
 */
import { Bitmap } from "../protocol/Bitmap.ts"

export class AskedPages {
  readonly #order: Array<number> = []
  #at = 0
  readonly #asked: Bitmap

  /** `total`: pages of the guest, in the numbering over all blocks. */
  constructor(total: number) {
    this.#asked = new Bitmap(total)
  }

  /** Notes a page, unless it is noted already. */
  add(page: number): void {
    if (!this.#asked.testAndSet(page)) this.#order.push(page)
  }

  /** Whether there is none to take. */
  get empty(): boolean {
    return this.#at === this.#order.length
  }

  /** Takes the page that was asked for first; -1 when there is none. */
  take(): number {
    if (this.#at === this.#order.length) {
      this.#order.length = 0
      this.#at = 0
      return -1
    }
    const page = this.#order[this.#at++]!
    this.#asked.clear(page)
    return page
  }

  /** Puts the page that was taken last back to its place. */
  unread(): void {
    this.#asked.set(this.#order[--this.#at]!)
  }
}
