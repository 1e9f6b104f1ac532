/**
 * What the kernel tells of the guest, in order: removals apply the moment they are read, faults are kept until they are
 * served, and then asked for together. Who waits for a page, and since when, is known here.
 *
 * Hot path: no Effect per page.
 */
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import type { PageStates } from "../services/PageStates.ts"
import { Event, EVENT_WORDS, type FaultChannel } from "../services/Userfaultfd.ts"
import type { BlockPages } from "./BlockPages.ts"
import type { PageInstaller } from "./PageInstaller.ts"
import { MAX_ASKED, type RequestBacklog } from "./RequestBacklog.ts"

/** Fault events looked at in one turn. */
const MAX_REQUESTS = 33280

export interface Options {
  readonly uffd: FaultChannel
  readonly blocks: ReadonlyArray<BlockPages>
  readonly backlog: RequestBacklog
  readonly installer: () => PageInstaller
  readonly counters: DaemonCounters
  readonly states: PageStates
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
  /** Addresses from `start` up to `end` are not the guest's memory any more. */
  readonly onRemoved: (start: number, end: number) => void
}

export class FaultIntake {
  /** Milliseconds at the last fault: soon after it comes its answer, and after that the guest's next fault. */
  lastAt = -Infinity
  readonly #options: Options
  readonly #faults: Array<number> = []
  readonly #asked: Array<number> = []
  #asking: BlockPages | undefined

  constructor(options: Options) {
    this.#options = options
  }

  /** Whether faults were read that are not served. */
  get pending(): boolean {
    return this.#faults.length > 0
  }

  /** So many events are in the ring. */
  take(count: number): void {
    const { onRemoved, uffd: { ring } } = this.#options
    for (let i = 0, at = 0; i < count; i++, at += EVENT_WORDS) {
      if (ring[at] === Event.Remove || ring[at] === Event.Unmap) onRemoved(ring[at + 1]!, ring[at + 2]!)
      else if (ring[at] === Event.PageFault) this.#faults.push(ring[at + 2]!)
    }
  }

  /** Reads what is pending. */
  read(): void {
    const { uffd } = this.#options
    const full = uffd.ring.length / EVENT_WORDS
    while (this.#faults.length < MAX_REQUESTS) {
      const n = uffd.drain()
      if (n > 0) this.take(n)
      // A read that does not fill the ring has read all there is.
      if (n < full) return
    }
  }

  /** Answers, asks for, or notes what was read. The link is the caller's to flush. */
  serve(): void {
    const faults = this.#faults
    if (faults.length > 0) this.lastAt = this.#options.now()
    for (let i = 0; i < faults.length; i++) this.#serve(faults[i]!)
    faults.length = 0
    this.#ask()
  }

  /** A thread waits for a host page, for the first time or not. */
  waits(pages: BlockPages, host: number, at: number): void {
    if (pages.since.has(host)) return
    pages.since.set(host, at)
    this.#options.counters.add("outstanding", 1)
  }

  /** Nobody waits for a host page any more. */
  answered(pages: BlockPages, host: number, at = this.#options.now()): void {
    const since = pages.since.get(host)
    if (since === undefined) return
    const { counters } = this.#options
    pages.since.delete(host)
    counters.add("outstanding", -1)
    counters.fault((at - since) * 1000)
  }

  /** The table's new targets are asked for. */
  requested({ table, targetBase }: BlockPages): void {
    const { states } = this.#options
    for (let i = 0; i < table.newTargets.length; i++) states.requested(targetBase + table.newTargets[i]!)
  }

  #ask(): void {
    if (this.#asking !== undefined && this.#asked.length > 0) this.#options.backlog.ask(this.#asking, this.#asked)
    this.#asked.length = 0
    this.#asking = undefined
  }

  #find(address: number): BlockPages | undefined {
    for (const pages of this.#options.blocks) {
      const host = Math.floor((address - pages.block.address) / pages.block.hostPageSize)
      if (host >= 0 && host < pages.table.geometry.hostPages) return pages
    }
    return undefined
  }

  #serve(address: number): void {
    const pages = this.#find(address)
    if (pages === undefined) return
    const { backlog, installer, now } = this.#options
    const { address: base, hostPageSize } = pages.block
    const host = Math.floor((address - base) / hostPageSize)
    const answer = pages.table.fault(host)
    if (answer === "installed") {
      installer().present(pages, base + host * hostPageSize)
      return
    }
    if (answer === "removed") {
      installer().zero(pages, host)
      return
    }
    this.waits(pages, host, now())
    if (answer === "known") return
    this.requested(pages)
    if (!backlog.open) {
      // Not asked for yet: should the guest give the page back meanwhile, the source has to be told.
      pages.table.unrequest()
      backlog.noteFault(pages, host)
      return
    }
    if (this.#asking !== pages) this.#ask()
    this.#asking = pages
    for (let i = 0; i < pages.table.newTargets.length; i++) this.#asked.push(pages.table.newTargets[i]!)
    if (this.#asked.length >= MAX_ASKED) this.#ask()
  }
}
