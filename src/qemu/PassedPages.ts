/** How far a migration is, told from the items of its stream alone: which pages have passed, and in which phase it is. */
import { Bitmap } from "../protocol/Bitmap.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import type { StreamItem } from "../protocol/qemu/StreamItem.ts"

export class PassedPages {
  readonly #blocks = new Map<string, Bitmap>()
  #total = 0
  #postcopy = false
  #returnPath = false
  #ended = false

  take(item: StreamItem): void {
    switch (item._tag) {
      case "MemSize":
        for (const { idstr, length } of item.blocks) this.#blocks.set(idstr, new Bitmap(length / TARGET_PAGE_SIZE))
        this.#total = item.total / TARGET_PAGE_SIZE
        return
      case "Page":
      case "Zero":
      case "Xbzrle":
      case "CompressPage":
        return this.#blocks.get(item.idstr)?.set(item.address / TARGET_PAGE_SIZE)
      case "OpenReturnPath":
        this.#returnPath = true
        return
      case "PostcopyRamDiscard":
        this.#postcopy = true
        for (const { length, start } of item.ranges) {
          const block = this.#blocks.get(item.idstr)
          const last = Math.min(block?.length ?? 0, (start + length) / TARGET_PAGE_SIZE)
          for (let page = start / TARGET_PAGE_SIZE; page < last; page++) block!.clear(page)
        }
        return
      case "Eof":
        this.#ended = this.#postcopy
        return
      case "VmDescription":
        this.#ended = true
        return
      default:
        return
    }
  }

  progress() {
    let received = 0
    for (const { count } of this.#blocks.values()) received += count
    return {
      total: this.#total,
      received,
      postcopy: this.#postcopy,
      returnPath: this.#returnPath,
      ended: this.#ended
    }
  }
}
