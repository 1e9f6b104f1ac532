/**
 * Puts host pages in place and judges what the kernel says to it. What it puts off (one unread removal makes every COPY
 * fail) is kept and tried again by a timer, for no event says when it would succeed.
 *
 * A page of mode "copy" goes in by COPY from the bytes given, or by ZEROPAGE. One of mode "continue" is written to the
 * memfd first, where the guest does not see it, and then mapped by CONTINUE; one that nothing was written for is zeros.
 *
 * Hot path: no Effect per page.
 */
import * as Latch from "effect/Latch"
import { errnoName } from "../native/Errno.ts"
import type { FaultChannel } from "../services/Userfaultfd.ts"
import type { BlockPages } from "./BlockPages.ts"

const EAGAIN = -11
const EEXIST = -17
const EFAULT = -14
const ENOENT = -2
const ESRCH = -3

/** ZEROPAGE is there for pages of this size at most; hugetlb memory takes a COPY of zeros. */
const MAX_ZEROPAGE = 64 * 1024

/** What became of one try. */
type Installed = "done" | "later" | "gone"

export interface Options {
  readonly uffd: FaultChannel
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
  #zeros = new Uint8Array(0)
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

  #judge(pages: BlockPages, address: number, result: number): Installed {
    const { fail } = this.#options
    if (result > 0) return "done"
    switch (result) {
      case EEXIST:
        this.present(pages, address)
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

  /** Lets whoever waits for a page that is there already go on. */
  present(pages: BlockPages, address: number): void {
    const { uffd } = this.#options
    const { hostPageSize, mode } = pages.block
    // A page of a memfd may be there without being mapped; where it is mapped, or is none any more, a wake-up is enough.
    if (mode === "continue" && uffd.continueRange(address, hostPageSize) > 0) return
    uffd.wake(address, hostPageSize)
  }

  #putZeros(pages: BlockPages, address: number): number {
    const { uffd } = this.#options
    const { hostPageSize } = pages.block
    if (hostPageSize <= MAX_ZEROPAGE) return uffd.zeropage(address, hostPageSize)
    if (this.#zeros.length < hostPageSize) this.#zeros = new Uint8Array(hostPageSize)
    return uffd.copy(address, this.#zeros, 0, hostPageSize)
  }

  /** Takes the bytes of `length` at `offset` of a block of mode "continue", to be mapped later; `host` is their page. */
  stage(pages: BlockPages, host: number, offset: number, bytes: Uint8Array, at: number, length: number): void {
    pages.staged.set(host)
    this.#options.uffd.staged(pages.block.idstr).write(offset, bytes, at, length)
  }

  #put(pages: BlockPages, host: number, address: number, bytes: Uint8Array | undefined, at: number): number {
    const { uffd } = this.#options
    const { hostPageSize } = pages.block
    if (pages.staged.test(host)) return uffd.continueRange(address, hostPageSize)
    return bytes === undefined ? this.#putZeros(pages, address) : uffd.copy(address, bytes, at, hostPageSize)
  }

  /**
   * Installs one complete host page: what was staged for it, else `bytes` at `at`, else (undefined) zeros. Keeps the
   * bytes when the kernel puts it off.
   */
  install(pages: BlockPages, host: number, bytes: Uint8Array | undefined, at: number): void {
    const { onGone, onPlaced, readEvents } = this.#options
    const address = pages.block.address + host * pages.block.hostPageSize
    let result = this.#put(pages, host, address, bytes, at)
    if (result === EAGAIN || result === EFAULT) {
      // The removal that makes it fail may be of this very page: a memfd loses a page only after its event was read.
      readEvents()
      if (!pages.table.installable(host)) return
      result = this.#put(pages, host, address, bytes, at)
    }
    const became = this.#judge(pages, address, result)
    if (became === "done") onPlaced(pages, host)
    else if (became === "gone") onGone(pages, host)
    else {
      pages.installDue.set(host, bytes?.slice(at, at + pages.block.hostPageSize))
      this.#later()
    }
  }

  /**
   * Installs neighbouring host pages of mode "copy" whose bytes lie `stride` apart (undefined: zeros), as
   * one. How many of them, from the first, are in place: the rest has to be installed one by one.
   */
  installRun(
    pages: BlockPages,
    host: number,
    count: number,
    bytes: Uint8Array | undefined,
    at: number,
    stride: number
  ): number {
    const { uffd } = this.#options
    const { address: base, hostPageSize } = pages.block
    const address = base + host * hostPageSize
    if (bytes !== undefined) return uffd.copyRun(address, bytes, at, stride, hostPageSize, count)
    if (hostPageSize > MAX_ZEROPAGE) return 0
    const n = uffd.zeropage(address, count * hostPageSize)
    return n > 0 ? Math.floor(n / hostPageSize) : 0
  }

  /** Answers a thread that waits for a removed page. */
  zero(pages: BlockPages, host: number): void {
    if (pages.zeroDue.test(host)) return
    const address = pages.block.address + host * pages.block.hostPageSize
    if (this.#judge(pages, address, this.#putZeros(pages, address)) !== "later") {
      return this.#options.onZeroed(pages, host)
    }
    pages.zeroDue.set(host)
    this.#later()
  }

  /** Forgets what was put off or half there of pages that were removed meanwhile: they read zero from now on. */
  forgetRemoved(pages: BlockPages, first: number, count: number): void {
    const { assembly, installDue, staged, table } = pages
    for (const host of installDue.keys()) if (table.isRemoved(host) && installDue.delete(host)) this.#putOff--
    for (const host of assembly.keys()) if (table.isRemoved(host)) assembly.delete(host)
    if (staged.count === 0) return
    const { hostPageSize, idstr } = pages.block
    for (let host = staged.nextSet(first); host >= 0 && host < first + count; host = staged.nextSet(host + 1)) {
      staged.clear(host)
      // SAFETY: nobody has seen a page that is not installed; one that is installed is the guest's own to drop.
      if (!table.isInstalled(host)) this.#options.uffd.staged(idstr).clear(host * hostPageSize, hostPageSize)
    }
  }

  /** Asks for no more retries: what was put off stays so, and whoever waits for it stays parked. */
  giveUp(): void {
    this.retryWanted.closeUnsafe()
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
        this.install(pages, host, bytes, 0)
      }
    }
    if (this.idle) this.retryWanted.closeUnsafe()
  }
}
