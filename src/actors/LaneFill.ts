/**
 * Fills the buffer of a connection with the pages that a source of pages names: neighbours in runs, huge pages as units, and
 * no more at once than may keep a page waiting that is asked for meanwhile.
 *
 * Hot path: no Effect per page.
 */
import type { Reason } from "../MigrationError.ts"
import { type BlockState, RUN_PAGES, type SenderLane } from "./SenderLane.ts"
import type { PageSource, SourcePages } from "./SourcePages.ts"

/** Pages looked at for one buffer: those of one byte take hardly any room, but time to be read. */
const MAX_LOOKED = 128
/** Bytes of a record but its page: more than any has, but the first of a block. */
const PER_PAGE = 16

export interface Options {
  readonly pages: SourcePages
  readonly targetPageSize: number
  /** Bytes that a lane's buffer may hold before a record more. */
  readonly capacity: number
}

/** Encodes dirty pages up to `limit` bytes while the source names any. Why not, when memory cannot be read. */
export type LaneFill = (lane: SenderLane, source: PageSource, limit: number) => Reason | undefined

export const make = ({ capacity, pages, targetPageSize }: Options): LaneFill => {
  const burst = new Float64Array(RUN_PAGES)
  let failed: Reason | undefined

  /** At most `most` pages of one block, or one unit; how many, 0 when the source has no more. */
  const fillOnce = (lane: SenderLane, source: PageSource, most: number, limit: number): number => {
    let state: BlockState | undefined
    let count = 0
    while (count < most) {
      const global = source.next()
      if (global < 0) break
      const of = pages.blockOf(global)
      if (!of.dirty.test(global - of.base)) continue
      if (count > 0 && (of !== state || of.unit > 1)) {
        source.unread()
        break
      }
      state = of
      if (of.unit > 1) {
        failed = lane.emit(of, global - of.base, limit)
        return of.unit
      }
      pages.sent(of, global - of.base)
      burst[count++] = global - of.base
    }
    if (state !== undefined) failed = lane.emitRun(state, burst, count)
    return count
  }

  /** Pages that certainly fit a lane that holds so many bytes. */
  const longestRun = (pending: number) =>
    Math.max(1, Math.min(RUN_PAGES, Math.floor((capacity - pending) / (targetPageSize + PER_PAGE))))

  return (lane, source, limit) => {
    let looked = 0
    let dense = true
    failed = undefined
    while (lane.pending() < limit && looked < MAX_LOOKED && !lane.midUnit() && failed === undefined) {
      const before = lane.pending()
      const room = Math.ceil((limit - before) / targetPageSize)
      // Pages of one byte take no room: after a run of them the next is as long as the buffer would bear anyway.
      const most = dense ? Math.min(room, RUN_PAGES) : longestRun(before)
      const count = fillOnce(lane, source, most, limit)
      // What has gone out already was a chunk.
      if (count === 0 || lane.hasSent()) break
      looked += count
      dense = lane.pending() - before >= targetPageSize
    }
    return failed
  }
}
