/**
 * The daemon's quick way: a fault on a page that nobody has asked for, its request, the wait for the answer and the
 * page's installation are one call, without a step of JavaScript between, and so are the pages that come unasked
 * meanwhile; tables, counters and histograms hear of it afterwards. What that call cannot do comes back as it was, as
 * events and bytes, and goes the ordinary way.
 *
 * Hot path: no Effect per page.
 */
import type { ReceiveBuffer } from "../protocol/ReceiveBuffer.ts"
import type { RamReader } from "../protocol/umem/RamReader.ts"
import { umem } from "../protocol/umem/UmemDialect.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import type { Link } from "../services/Link.ts"
import * as PageExchange from "../services/PageExchange.ts"
import type { FaultChannel } from "../services/Userfaultfd.ts"
import type { BlockPages } from "./BlockPages.ts"
import type { RequestBacklog } from "./RequestBacklog.ts"

export interface Options {
  readonly uffd: FaultChannel
  readonly link: Link
  readonly blocks: ReadonlyArray<BlockPages>
  readonly targetPageSize: number
  readonly input: ReceiveBuffer
  readonly reader: RamReader
  readonly backlog: RequestBacklog
  readonly counters: DaemonCounters
  /** Whether pages may be installed and the link be read now. */
  readonly ready: () => boolean
  /** A page was asked for and installed so many microseconds later. */
  readonly onFetched: (pages: BlockPages, host: number, micros: number) => void
  /** A thread waits for a page, which was asked for. Milliseconds. */
  readonly onAsked: (pages: BlockPages, host: number, at: number) => void
  /** A page that was asked for before was installed. */
  readonly onPlaced: (pages: BlockPages, host: number, at: number) => void
  /** So many pages from `first` on were installed that nobody had asked for. Milliseconds. */
  readonly onPushed: (pages: BlockPages, first: number, count: number, at: number) => void
  /** The backlog has the rest of a request. */
  readonly onUnsent: () => void
  /** So many events are in the ring. */
  readonly onEvents: (count: number) => void
  /** Bytes came; what is left of them is in the input. `asked`: pages were among them that had been asked for. */
  readonly onBytes: (count: number, asked: boolean) => void
}

const { Came, Fetch, LOG_WORDS, Logged } = PageExchange
/** Bytes read at once. */
const READ_BYTES = 128 * 1024
/** Larger pages go the ordinary way. */
const MOST_PAGE_BYTES = 64 * 1024
const NANOS_PER_MILLI = 1e6
const NANOS_PER_MICRO = 1e3

/** Waits at most so many nanoseconds; {@link PageExchange.Came} as bits, or `undefined` when this is no time for it. */
export type QuickPages = (nanos: number) => number | undefined

export const make = (options: Options): QuickPages => {
  const { backlog, blocks, counters, input, link, reader, ready, targetPageSize, uffd } = options
  const { fetch } = uffd
  const { simple } = umem
  if (fetch === undefined || simple === undefined || targetPageSize > MOST_PAGE_BYTES) return () => undefined
  const plan = new Float64Array(Fetch.words + LOG_WORDS * PageExchange.LOG_ENTRIES)
  plan[Fetch.pageSize] = targetPageSize
  plan[Fetch.pageFlags] = simple.pageFlags
  plan[Fetch.fillFlags] = simple.fillFlags
  plan[Fetch.command] = simple.command

  /**
   * Carries out what the log says has happened: whether pages came that had been asked for. The guest's next fault waits
   * meanwhile: most entries are pairs.
   */
  const replay = (pages: BlockPages, count: number): boolean => {
    const end = Fetch.words + count * LOG_WORDS
    let placed = 0
    let pushed = 0
    let fills = 0
    for (let word: number = Fetch.words; word < end; word += LOG_WORDS) {
      const kind = plan[word]!
      const host = plan[word + 1]!
      const at = plan[word + 2]!
      const next = word + LOG_WORDS
      if (kind >= Logged.run) {
        const count = plan[word + 3]!
        options.onPushed(pages, host, count, at / NANOS_PER_MILLI)
        pushed += count
        if (kind === Logged.fillRun) fills += count
        continue
      }
      if (kind === Logged.placed) options.onPlaced(pages, host, at / NANOS_PER_MILLI)
      else if (next < end && plan[next] === Logged.placed && plan[next + 1] === host) {
        options.onFetched(pages, host, (plan[next + 2]! - at) / NANOS_PER_MICRO)
        word = next
      } else {
        options.onAsked(pages, host, at / NANOS_PER_MILLI)
        continue
      }
      placed++
      fills += plan[word + 3]!
    }
    if (placed > 0) counters.add("onDemand", placed)
    if (pushed > 0) counters.add("background", pushed)
    if (fills > 0) counters.add("fill", fills)
    return placed > 0
  }

  return (nanos) => {
    const pages = blocks[reader.continuing]
    if (pages === undefined || !ready()) return undefined
    const { address, hostPageSize, mode } = pages.block
    if (mode !== "copy" || hostPageSize !== targetPageSize) return undefined
    const have = input.available
    if (have > MOST_PAGE_BYTES) return undefined
    reader.rewind()
    input.reserve(READ_BYTES + PageExchange.REQUEST_ROOM)
    plan[Fetch.address] = address
    plan[Fetch.pages] = pages.table.hostPages
    plan[Fetch.nanos] = nanos
    plan[Fetch.readAt] = input.start
    plan[Fetch.have] = have
    plan[Fetch.readMost] = have + READ_BYTES
    plan[Fetch.asks] = backlog.continues(pages) ? 1 : 0
    const { receivedBytes, requestedBytes } = pages.table
    const logged = fetch(link, plan, requestedBytes, receivedBytes, input.bytes)
    if (logged < 0) return undefined
    const asked = replay(pages, logged)
    const unsent = plan[Fetch.unsent]!
    counters.add("bytesSent", plan[Fetch.bytesOut]!)
    if (unsent > 0) {
      backlog.resume(input.bytes.subarray(input.bytes.length - unsent))
      options.onUnsent()
    }
    const passed = plan[Fetch.bytesIn]!
    const unhandled = plan[Fetch.unhandled]!
    // What is left lies where the input began.
    input.offset += passed
    input.end = input.start + unhandled
    const came = passed + unhandled - have
    const events = plan[Fetch.faults]!
    if (events > 0) options.onEvents(events)
    if (came > 0) options.onBytes(came, asked)
    return (logged + events + came > 0 ? Came.Something : Came.Nothing) |
      (plan[Fetch.contended] === 1 ? Came.Contended : 0)
  }
}
