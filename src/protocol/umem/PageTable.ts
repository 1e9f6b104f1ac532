/**
 * The state of one destination block: target pages requested and received, host pages installed and removed. It decides
 * what a fault, an arriving page and a removal lead to; who asks carries it out. A page is asked for once, a host page
 * installed once all of it is there, a removal wins over data that comes later, and a removed page reads zero for ever.
 *
 *   missing ──fault()──▶ requested ──received()──▶ received ──(host page whole)──▶ install ──installed()──▶ installed
 *      └────────────────────┴─────────────────────────┴──────remove()───────────────┴──────▶ removed: zeros
 *
 * Hot path: no allocation per page; lists are fields that the next call overwrites. Page numbers are the caller's to
 * keep within the block.
 */
import { Bitmap } from "../Bitmap.ts"
import { PageGeometry } from "../PageGeometry.ts"

/**
 * What a fault on a host page needs: `request` asks for `newTargets`; `known` waits, for it was asked for or is being
 * installed; `removed` gets a page of zeros; `installed` gets a wake-up.
 */
export type Fault = "request" | "known" | "removed" | "installed"

/**
 * What becomes of an arriving target page: `discard` (a duplicate, or of removed memory), `stage` (its host page is not
 * whole yet), `install` (its host pages from `firstHost` up to `endHost`, those that are `installable`).
 */
export type Arrival = "discard" | "stage" | "install"

export interface Options {
  /** Bytes of the block. */
  readonly length: number
  /** Bytes, a power of two. */
  readonly targetPageSize: number
  /** Bytes, a power of two. */
  readonly hostPageSize: number
}

export class PageTable {
  readonly geometry: PageGeometry
  readonly targetPages: number
  readonly hostPages: number
  /** Of the last `fault` or `prefetch`: what to ask for. Of the last `remove`: what to tell the source not to send. */
  readonly newTargets: Array<number> = []
  /** Of the last `remove`: host pages a thread waits for. Answer them with zeros at once: no event will come again. */
  readonly waiters: Array<number> = []
  /** Of the last `remove`: how many host pages were not removed before. */
  newlyRemoved = 0

  /** Target pages whose data came, or never needs to. */
  readonly #received: Bitmap
  /** Target pages asked for, or never to be. */
  readonly #requested: Bitmap
  /** Host pages whose content was installed; a later removal does not clear it. */
  readonly #installed: Bitmap
  /** Host pages given back by the guest. */
  readonly #removed: Bitmap
  /** Host pages that a thread waits for. */
  readonly #waiting: Bitmap
  #removedTargets = 0
  #settled = 0

  constructor({ hostPageSize, length, targetPageSize }: Options) {
    this.geometry = new PageGeometry(length, targetPageSize, hostPageSize)
    this.targetPages = this.geometry.targetPages
    this.hostPages = this.geometry.hostPages
    this.#received = new Bitmap(this.targetPages)
    this.#requested = new Bitmap(this.targetPages)
    this.#installed = new Bitmap(this.hostPages)
    this.#removed = new Bitmap(this.hostPages)
    this.#waiting = new Bitmap(this.hostPages)
  }

  /** The first target page of a host page. */
  firstTarget(host: number): number {
    return this.geometry.firstTarget(host)
  }
  /** One past the last target page of a host page. */
  endTarget(host: number): number {
    return this.geometry.firstTarget(host) + this.geometry.targetCount(host)
  }
  /** The first host page of a target page. */
  firstHost(target: number): number {
    return this.geometry.firstHost(target)
  }
  /** One past the last host page of a target page. */
  endHost(target: number): number {
    return this.geometry.firstHost(target) + this.geometry.hostCount(target)
  }

  /** Target pages whose data came and was taken. */
  get receivedTargets(): number {
    return this.#received.count - this.#removedTargets
  }
  /** Target pages given up before their data came. Together with those received and missing: all. */
  get removedTargets(): number {
    return this.#removedTargets
  }
  /** Target pages that still have to come. */
  get missing(): number {
    return this.targetPages - this.#received.count
  }
  /** Host pages that threads wait for. */
  get waiting(): number {
    return this.#waiting.count
  }
  /** Whether every host page is installed or removed. */
  get complete(): boolean {
    return this.#settled === this.hostPages
  }
  /** Whether the data of a target page is still of use. To be asked before a payload is stored. */
  wants(target: number): boolean {
    return !this.#received.test(target)
  }
  /** How many target pages from `first` on, at most `most`, are all of use. */
  wanted(first: number, most: number): number {
    let n = 0
    while (n < most && !this.#received.test(first + n)) n++
    return n
  }
  /** Bits of the target pages asked for, or never to be; and of those whose data came, or never needs to. To be read. */
  get requestedBytes(): Uint8Array {
    return this.#requested.bytes
  }
  get receivedBytes(): Uint8Array {
    return this.#received.bytes
  }
  /** Whether a target page was asked for, or never will be. */
  isRequested(target: number): boolean {
    return this.#requested.test(target)
  }
  isRemoved(host: number): boolean {
    return this.#removed.test(host)
  }
  isInstalled(host: number): boolean {
    return this.#installed.test(host)
  }
  /** Whether all target pages of a host page came: tested from its beginning to the end of the block. */
  ready(host: number): boolean {
    const hole = this.#received.nextClear(this.firstTarget(host))
    return hole < 0 || hole >= this.endTarget(host)
  }
  /** Whether a host page is neither removed nor installed. To be asked again before each retry, with all events read. */
  installable(host: number): boolean {
    return !this.#removed.test(host) && !this.#installed.test(host)
  }

  /** A thread touched a host page, and waits. */
  fault(host: number): Fault {
    this.newTargets.length = 0
    if (this.#removed.test(host)) return "removed"
    if (this.#installed.test(host)) return "installed"
    this.#waiting.set(host)
    return this.#request(host) ? "request" : "known"
  }

  /** Asks for what is missing of a host page that nobody waits for: whether `newTargets` has any. */
  prefetch(host: number): boolean {
    this.newTargets.length = 0
    return this.installable(host) && this.#request(host)
  }

  /** Takes the last `newTargets` of `fault` or `prefetch` back: they could not be asked for, so they are not. */
  unrequest(): void {
    for (let i = 0; i < this.newTargets.length; i++) this.#requested.clear(this.newTargets[i]!)
    this.newTargets.length = 0
  }

  #request(host: number): boolean {
    const end = this.endTarget(host)
    for (let target = this.firstTarget(host); target < end; target++) {
      if (!this.#received.test(target) && !this.#requested.testAndSet(target)) this.newTargets.push(target)
    }
    return this.newTargets.length > 0
  }

  /** The data of a target page is here: what to do with it. */
  received(target: number): Arrival {
    if (this.#received.testAndSet(target)) return "discard"
    return this.ready(this.firstHost(target)) ? "install" : "stage"
  }

  /** A fault on a host page that is one target page was answered already: asked for, received and installed. */
  fetched(page: number): void {
    this.#requested.set(page)
    this.#received.set(page)
    this.installed(page)
  }

  /** The same for `count` pages from `page` on that nobody asked for, and that had not come. */
  placed(page: number, count: number): void {
    this.#received.setRun(page, count)
    this.#installed.setRun(page, count)
    this.#settled += count
    if (this.#waiting.count === 0) return
    for (let i = page; i < page + count; i++) this.#waiting.clear(i)
  }

  /** The kernel has a host page's content, or had it already: whether that is new. */
  installed(host: number): boolean {
    this.#waiting.clear(host)
    if (this.#installed.testAndSet(host)) return false
    if (!this.#removed.test(host)) this.#settled++
    return true
  }

  /**
   * The guest gave `count` host pages from `first` on back. The source is told of target pages of which nothing is left
   * and that were neither asked for nor received; a page whose data had come stays counted as received.
   */
  remove(first: number, count = 1): void {
    this.newTargets.length = 0
    this.waiters.length = 0
    this.newlyRemoved = 0
    const end = Math.min(first + count, this.hostPages)
    for (let host = Math.max(0, first); host < end; host++) {
      if (this.#removed.testAndSet(host)) continue
      this.newlyRemoved++
      if (!this.#installed.test(host)) this.#settled++
      if (this.#waiting.testAndClear(host)) this.waiters.push(host)
      const endTarget = this.endTarget(host)
      for (let target = this.firstTarget(host); target < endTarget; target++) this.#giveUp(target)
    }
  }

  /** Lets go of a target page once every host page of it is removed. */
  #giveUp(target: number): void {
    const end = this.endHost(target)
    for (let host = this.firstHost(target); host < end; host++) if (!this.#removed.test(host)) return
    if (this.#received.testAndSet(target)) return
    this.#removedTargets++
    if (!this.#requested.testAndSet(target)) this.newTargets.push(target)
  }
}
