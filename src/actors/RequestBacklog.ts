/**
 * What the daemon has to say to the source and the link has not taken. It has a mark: above it faults and removals are
 * only noted, as bits, and said once the backlog has shrunk; so it is bounded whatever the guest does and however long
 * the source does not read. Nothing follows the end of connection.
 *
 * Hot path: no Effect per page.
 */
import * as Request from "../protocol/umem/Request.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import type { BlockPages } from "./BlockPages.ts"

/** Bytes above which faults are only noted: 33280 requests of 16 bytes. */
export const PENDING_SIZE_MAX = 532480
/** Pages of one message: it takes the room below, name and all. */
export const MAX_ASKED = 4000
const MESSAGE_ROOM = 64 * 1024

export interface Options {
  readonly link: Link
  readonly blocks: ReadonlyArray<BlockPages>
  readonly counters: DaemonCounters
  /** Called when the end of connection is written, or cannot be any more. */
  readonly onEoc: () => void
}

export class RequestBacklog {
  readonly #options: Options
  readonly #requests = Request.encoder()
  readonly #out = new Uint8Array(PENDING_SIZE_MAX + 2 * MESSAGE_ROOM)
  #at = 0
  #end = 0
  /** Faults and removals that wait for the backlog to shrink. */
  #noted = 0
  /** The source takes nothing any more. */
  #deaf = false
  #eoc: "no" | "queued" | "written" = "no"
  /** The guest goes away: what it still waits for is not asked for. */
  #closing = false

  constructor(options: Options) {
    this.#options = options
  }

  get pending(): boolean {
    return this.#at < this.#end
  }
  get eocWritten(): boolean {
    return this.#eoc === "written"
  }

  stopAsking(): void {
    this.#closing = true
  }

  #compact(): void {
    this.#out.copyWithin(0, this.#at, this.#end)
    this.#end -= this.#at
    this.#at = 0
  }

  /** False when there is no room. */
  #put(kind: Request.Kind, pages: BlockPages, targets: ReadonlyArray<number>): boolean {
    if (this.#deaf || this.#eoc !== "no") return true
    const { idstr } = pages.block
    if (this.#end + this.#requests.size(kind, idstr, targets.length) > this.#out.length) this.#compact()
    const n = this.#requests.write(this.#out, this.#end, kind, idstr, targets, targets.length)
    if (n < 0) return false
    this.#end += n
    return true
  }

  #byte(message: Uint8Array): void {
    if (this.#end + 1 > this.#out.length) this.#compact()
    this.#out.set(message, this.#end)
    this.#end += message.length
  }

  /** Whether faults may be asked for now; otherwise they are to be noted. */
  get open(): boolean {
    return this.#end - this.#at <= PENDING_SIZE_MAX
  }

  /** Whether a fault on this block may be asked for past this backlog: everything is said, and the block needs no name. */
  continues(pages: BlockPages): boolean {
    return this.#at === this.#end && this.#noted === 0 && !this.#closing && !this.#deaf && this.#eoc === "no" &&
      this.#requests.continuing() === pages.block.idstr
  }

  /** Takes the rest of a request of which the link took the beginning. */
  resume(rest: Uint8Array): void {
    this.#byte(rest)
  }

  /** Asks for at most {@link MAX_ASKED} target pages. */
  ask(pages: BlockPages, targets: ReadonlyArray<number>): void {
    if (!this.#closing) this.#put("onDemand", pages, targets)
  }

  /** Notes a fault for later. */
  noteFault(pages: BlockPages, host: number): void {
    if (!pages.suspended.testAndSet(host)) this.#noted++
  }

  /** Forgets noted faults on host pages that were removed. */
  forgetFaults(pages: BlockPages, first: number, count: number): void {
    if (this.#noted === 0) return
    const { suspended } = pages
    for (let host = suspended.nextSet(first); host >= 0 && host < first + count; host = suspended.nextSet(host + 1)) {
      suspended.clear(host)
      this.#noted--
    }
  }

  /** Tells the source what it need not send. */
  tellRemoved(pages: BlockPages, targets: ReadonlyArray<number>): void {
    // One message's worth at a time: a whole block may be given back at once.
    for (let at = 0; at < targets.length; at += MAX_ASKED) {
      const some = targets.length <= MAX_ASKED ? targets : targets.slice(at, at + MAX_ASKED)
      if (this.#put("remove", pages, some)) continue
      for (const target of some) if (!pages.removalDue.testAndSet(target)) this.#noted++
    }
  }

  /** A sign of life that sources of 2011 accept. */
  init(): void {
    // The guest may have quit before it began.
    if (this.#eoc !== "no") return
    this.#byte(Request.init())
  }

  eoc(): void {
    if (this.#eoc !== "no") return
    this.#byte(Request.eoc())
    this.#eoc = "queued"
  }

  /** Says what was only noted, as far as the backlog allows. */
  #forwardNoted(): void {
    if (this.#noted === 0) return
    for (const pages of this.#options.blocks) {
      const { removalDue, suspended, table } = pages
      for (let target = removalDue.nextSet(0); target >= 0 && this.open; target = removalDue.nextSet(target + 1)) {
        removalDue.clear(target)
        this.#noted--
        this.tellRemoved(pages, [target])
      }
      for (let host = suspended.nextSet(0); host >= 0 && this.open; host = suspended.nextSet(host + 1)) {
        suspended.clear(host)
        this.#noted--
        if (table.prefetch(host)) this.ask(pages, table.newTargets)
      }
    }
  }

  /**
   * Writes what the link takes, noted things included: while something is noted the backlog is never left empty, since
   * only a backlog is told when the link takes more.
   */
  flush(): void {
    const { counters, link, onEoc } = this.#options
    while (true) {
      if (this.#noted > 0 && this.open) this.#forwardNoted()
      if (this.#at === this.#end) break
      const n = link.write(this.#out, this.#at, this.#end - this.#at)
      if (n === AGAIN) break
      if (n <= 0) {
        // What was to be said cannot be said any more. What the source has sent is read all the same: it may be
        // everything, and the end of it tells what has happened.
        this.#at = this.#end = 0
        this.#deaf = true
        break
      }
      this.#at += n
      counters.add("bytesSent", n)
    }
    if (this.#at < this.#end) return
    this.#at = this.#end = 0
    if (this.#eoc !== "queued") return
    this.#eoc = "written"
    onEoc()
  }
}
