/**
 * Puts host pages in place and judges what the kernel says to it. What it puts off (one unread removal makes every COPY
 * fail) is kept and tried again by a timer, for no event says when it would succeed.
 *
 * Hot path: no Effect per page.
 */
import * as Latch from "effect/Latch"
import { errnoName } from "../native/Errno.ts"
import type { FaultChannel } from "../services/Userfaultfd.ts"
import type { BlockPages } from "./BlockPages.ts"

const EAGAIN = -11
const EEXIST = -17
const ENOENT = -2
const ESRCH = -3

/** What became of one try. */
type Installed = "done" | "later" | "gone"

export interface Options {
  readonly uffd: FaultChannel
  readonly hostPageSize: number
  /** Reads all pending events; removals among them apply at once. */
  readonly readEvents: () => void
  /** A host page is in place. */
  readonly onPlaced: (pages: BlockPages, host: number) => void
  /** A host page is no memory of the guest's any more. */
  readonly onGone: (pages: BlockPages, host: number) => void
  /** A thread that waited for a removed page has got zeros. */
  readonly onZeroed: (pages: BlockPages, host: number) => void
  readonly fail: (detail: string) => void
}

export class PageInstaller {
  readonly #options: Options
  #putOff = 0
  /** Open while something was put off. */
  readonly retryWanted = Latch.makeUnsafe(false)

  constructor(options: Options) {
    this.#options = options
  }

  /** Whether nothing waits for a retry: only then may more pages be taken from the link. */
  get idle(): boolean {
    return this.#putOff === 0
  }

  #later(): void {
    this.#putOff++
    this.retryWanted.openUnsafe()
  }

  #judge(address: number, result: number): Installed {
    const { fail, hostPageSize, uffd } = this.#options
    if (result > 0) return "done"
    switch (result) {
      case EEXIST:
        uffd.wake(address, hostPageSize)
        return "done"
      case EAGAIN:
        return "later"
      case ENOENT:
        return "gone"
      case ESRCH:
        fail("the guest's process is gone")
        return "gone"
      default:
        fail(`the kernel refused a page at 0x${address.toString(16)}: ${errnoName(-result)}`)
        return "gone"
    }
  }

  /** Installs one complete host page from `bytes` at `offset`, or zeros; keeps the bytes when the kernel puts it off. */
  install(pages: BlockPages, host: number, bytes: Uint8Array, offset: number, zeros: boolean): void {
    const { hostPageSize, onGone, onPlaced, readEvents, uffd } = this.#options
    const address = pages.block.address + host * hostPageSize
    const once = () =>
      this.#judge(
        address,
        zeros ? uffd.zeropage(address, hostPageSize) : uffd.copy(address, bytes, offset, hostPageSize)
      )
    let result = once()
    if (result === "later") {
      // The removal that makes it fail may be of this very page.
      readEvents()
      if (!pages.table.installable(host)) return
      result = once()
    }
    if (result === "done") onPlaced(pages, host)
    else if (result === "gone") onGone(pages, host)
    else {
      pages.installDue.set(host, bytes.slice(offset, offset + hostPageSize))
      this.#later()
    }
  }

  /** Answers a thread that waits for a removed page. */
  zero(pages: BlockPages, host: number): void {
    const { hostPageSize, onZeroed, uffd } = this.#options
    if (pages.zeroDue.test(host)) return
    const address = pages.block.address + host * hostPageSize
    if (this.#judge(address, uffd.zeropage(address, hostPageSize)) !== "later") return onZeroed(pages, host)
    pages.zeroDue.set(host)
    this.#later()
  }

  /** Forgets what was put off for pages that were removed meanwhile. */
  forgetRemoved(pages: BlockPages): void {
    const { installDue, staging, table } = pages
    for (const host of installDue.keys()) if (table.isRemoved(host) && installDue.delete(host)) this.#putOff--
    for (const host of staging.keys()) if (table.isRemoved(host)) staging.delete(host)
  }

  /** Tries again what was put off. The events must have been read. */
  retry(blocks: ReadonlyArray<BlockPages>): void {
    for (const pages of blocks) {
      const { installDue, zeroDue } = pages
      for (let host = zeroDue.nextSet(0); host >= 0; host = zeroDue.nextSet(host + 1)) {
        zeroDue.clear(host)
        this.#putOff--
        this.zero(pages, host)
      }
      for (const [host, bytes] of Array.from(installDue)) {
        // An earlier one's events may have removed it meanwhile.
        if (!installDue.delete(host)) continue
        this.#putOff--
        this.install(pages, host, bytes, 0, false)
      }
    }
    if (this.idle) this.retryWanted.closeUnsafe()
  }
}
