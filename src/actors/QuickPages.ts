/**
 * The daemon's quick way: a fault on a page that nobody has asked for, its request, the wait for the answer and the
 * page's installation are one call, without a step of JavaScript between; tables, counters and histograms hear of it
 * afterwards. What that call cannot do comes back as it was, as events and bytes, and goes the ordinary way.
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
  /** The backlog has the rest of a request. */
  readonly onUnsent: () => void
  /** So many events are in the ring. */
  readonly onEvents: (count: number) => void
  /** Bytes came that are in the input. */
  readonly onBytes: (count: number) => void
}

const { Came, Fetch, LOG_WORDS } = PageExchange
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
  plan[Fetch.readMost] = READ_BYTES

  /** Carries out what the log says has happened. The guest's next fault waits meanwhile: most entries are pairs. */
  const replay = (pages: BlockPages, count: number) => {
    const end = Fetch.words + count * LOG_WORDS
    let placed = 0
    let fills = 0
    for (let word: number = Fetch.words; word < end; word += LOG_WORDS) {
      const host = plan[word + 1]!
      const at = plan[word + 2]!
      const next = word + LOG_WORDS
      if (plan[word] === 1) options.onPlaced(pages, host, at / NANOS_PER_MILLI)
      else if (next < end && plan[next] === 1 && plan[next + 1] === host) {
        options.onFetched(pages, host, (plan[next + 2]! - at) / NANOS_PER_MICRO)
        word = next
      } else {
        options.onAsked(pages, host, at / NANOS_PER_MILLI)
        continue
      }
      placed++
      fills += plan[word + 3]!
    }
    if (placed === 0) return
    counters.add("onDemand", placed)
    counters.add("fill", fills)
  }

  return (nanos) => {
    const pages = blocks[reader.continuing]
    if (pages === undefined || !ready()) return undefined
    const { address, hostPageSize, mode } = pages.block
    if (mode !== "copy" || hostPageSize !== targetPageSize) return undefined
    input.reserve(READ_BYTES + PageExchange.REQUEST_ROOM)
    plan[Fetch.address] = address
    plan[Fetch.pages] = pages.table.hostPages
    plan[Fetch.nanos] = nanos
    plan[Fetch.readAt] = input.end
    plan[Fetch.asks] = backlog.continues(pages) ? 1 : 0
    const { receivedBytes, requestedBytes } = pages.table
    const logged = fetch(link, plan, requestedBytes, receivedBytes, input.bytes)
    if (logged < 0) return undefined
    replay(pages, logged)
    const unsent = plan[Fetch.unsent]!
    counters.add("bytesSent", plan[Fetch.bytesOut]!)
    if (unsent > 0) {
      backlog.resume(input.bytes.subarray(input.bytes.length - unsent))
      options.onUnsent()
    }
    const passed = plan[Fetch.bytesIn]!
    input.offset += passed
    const unhandled = plan[Fetch.unhandled]!
    input.commit(unhandled)
    const events = plan[Fetch.faults]!
    if (events > 0) options.onEvents(events)
    if (passed + unhandled > 0) options.onBytes(passed + unhandled)
    return (logged + events + unhandled > 0 ? Came.Something : Came.Nothing) |
      (plan[Fetch.contended] === 1 ? Came.Contended : 0)
  }
}
