/**
 * Pages as they come from the source, on their way to the kernel: each is taken once, kept until its host page is whole
 * where the two differ in size, and neighbours that are alike go in by one call.
 *
 * Hot path: no Effect per page.
 */
import type { ReceiveBuffer } from "../protocol/ReceiveBuffer.ts"
import { type RamReader, Read } from "../protocol/umem/RamReader.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import type { PageStates } from "../services/PageStates.ts"
import type { BlockPages } from "./BlockPages.ts"
import type { PageInstaller } from "./PageInstaller.ts"

/** Pages installed between two looks at the userfaultfd: what a fault waits for at most. */
export const PAGES_BETWEEN_LOOKS = 16
/** The same for zeros, which cost a tenth. */
const ZEROS_BETWEEN_LOOKS = 256

export interface Options {
  readonly blocks: ReadonlyArray<BlockPages>
  readonly targetPageSize: number
  readonly input: ReceiveBuffer
  readonly reader: RamReader
  readonly installer: PageInstaller
  readonly counters: DaemonCounters
  readonly states: PageStates
  /** A host page is in place. */
  readonly onPlaced: (pages: BlockPages, host: number) => void
}

/** Takes the page or fill that the reader has found, and what follows of the same kind. How many pages. */
export type PageArrivals = (read: Read) => number

export const make = (options: Options): PageArrivals => {
  const { blocks, counters, input, installer, onPlaced, reader, states, targetPageSize } = options
  const fillBytes = new Uint8Array(PAGES_BETWEEN_LOOKS * targetPageSize)
  let filled = 0

  /**
   * Keeps the bytes of a target page until its host pages go in: in the memfd, or where it is the smaller in a buffer for
   * the whole host page. `undefined` is zeros, which a memfd has of its own accord.
   */
  const keep = (pages: BlockPages, target: number, bytes: Uint8Array | undefined) => {
    const { assembly, block, table } = pages
    const { hostPageSize, length, mode } = block
    const host = table.firstHost(target)
    if (mode === "continue") {
      if (bytes === undefined) return
      const end = Math.min((target + 1) * targetPageSize, length)
      for (let at = target * targetPageSize, page = host; at < end; page++) {
        const n = Math.min((page + 1) * hostPageSize, end) - at
        // Of a target page that is larger a part may have been given back.
        if (!table.isRemoved(page)) installer.stage(pages, page, at, bytes, at - target * targetPageSize, n)
        at += n
      }
      return
    }
    if (targetPageSize >= hostPageSize) return
    let assembled = assembly.get(host)
    if (assembled === undefined) {
      assembled = new Uint8Array(hostPageSize)
      assembly.set(host, assembled)
    }
    if (bytes !== undefined) assembled.set(bytes, (target - table.firstTarget(host)) * targetPageSize)
  }

  /** Takes one target page (`undefined`: zeros) and installs every host page that it completes. */
  const arrive = (pages: BlockPages, target: number, bytes: Uint8Array | undefined, isFill: boolean) => {
    const { assembly, block, table } = pages
    if (!table.wants(target)) return
    counters.add(table.isRequested(target) ? "onDemand" : "background", 1)
    states.received(pages.targetBase + target)
    if (isFill) counters.add("fill", 1)
    keep(pages, target, bytes)
    if (table.received(target) === "stage") return
    const first = table.firstHost(target)
    const end = table.endHost(target)
    const assembled = assembly.get(first)
    if (assembled !== undefined) assembly.delete(first)
    for (let host = first, at = 0; host < end; host++, at += block.hostPageSize) {
      if (table.installable(host)) installer.install(pages, host, assembled ?? bytes, at)
    }
  }

  /**
   * Takes a run of neighbouring target pages of a block of which each is one host page of mode "copy"; they lie `stride`
   * apart in `bytes`. The run goes in by one call as far as the kernel takes it.
   */
  const arriveRun = (
    pages: BlockPages,
    first: number,
    count: number,
    bytes: Uint8Array | undefined,
    at: number,
    stride: number,
    isFill: boolean
  ) => {
    const { table } = pages
    for (let i = 0; i < count;) {
      const wanted = table.wanted(first + i, count - i)
      if (wanted === 0) {
        i++
        continue
      }
      let requested = 0
      for (let j = 0; j < wanted; j++) {
        if (table.isRequested(first + i + j)) requested++
        table.received(first + i + j)
        states.received(pages.targetBase + first + i + j)
      }
      counters.add("onDemand", requested)
      counters.add("background", wanted - requested)
      if (isFill) counters.add("fill", wanted)
      const start = at + i * stride
      const inPlace = installer.installRun(pages, first + i, wanted, bytes, start, stride)
      for (let j = 0; j < inPlace; j++) onPlaced(pages, first + i + j)
      for (let j = inPlace; j < wanted; j++) {
        // A removal that was read meanwhile may be of this page.
        if (table.installable(first + i + j)) installer.install(pages, first + i + j, bytes, start + j * stride)
      }
      i += wanted
    }
  }

  /**
   * Makes the first `count` pages of `fillBytes` repeat a byte. SAFETY: they serve all fills: COPY has taken the bytes, or
   * the installer a copy of them, before the next record.
   */
  const repeat = (byte: number, count: number) => {
    if (fillBytes[0] !== byte) filled = 0
    if (filled < count) fillBytes.fill(byte, filled * targetPageSize, count * targetPageSize)
    filled = Math.max(filled, count)
  }

  return (read) => {
    const pages = blocks[reader.blockIndex]!
    const target = reader.address / targetPageSize
    const isFill = read === Read.Fill
    const { byte, dataAt, stride } = reader
    const zeros = isFill && byte === 0
    const alike = pages.block.mode === "copy" && pages.block.hostPageSize === targetPageSize
    const count = alike ? 1 + reader.more((zeros ? ZEROS_BETWEEN_LOOKS : PAGES_BETWEEN_LOOKS) - 1) : 1
    if (isFill && !zeros) repeat(byte, count)
    if (!alike) {
      const bytes = isFill
        ? fillBytes.subarray(0, targetPageSize)
        : input.bytes.subarray(dataAt, dataAt + targetPageSize)
      arrive(pages, target, zeros ? undefined : bytes, isFill)
      return 1
    }
    if (isFill) arriveRun(pages, target, count, zeros ? undefined : fillBytes, 0, targetPageSize, true)
    else arriveRun(pages, target, count, input.bytes, dataAt, stride, false)
    return zeros ? Math.ceil(count / (ZEROS_BETWEEN_LOOKS / PAGES_BETWEEN_LOOKS)) : count
  }
}
