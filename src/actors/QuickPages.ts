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
import type { PageStates } from "../services/PageStates.ts"
import type { FaultChannel } from "../services/Userfaultfd.ts"
import type { BlockPages } from "./BlockPages.ts"
import type { FaultIntake } from "./FaultIntake.ts"
import type { RequestBacklog } from "./RequestBacklog.ts"

export interface Options {
  readonly uffd: FaultChannel
  readonly link: Link
  readonly blocks: ReadonlyArray<BlockPages>
  readonly targetPageSize: number
  readonly input: ReceiveBuffer
  readonly reader: RamReader
  readonly backlog: RequestBacklog
  readonly intake: FaultIntake
  readonly counters: DaemonCounters
  readonly states: PageStates
  /** Whether pages may be installed and the link be read now. */
  readonly ready: () => boolean
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
  /** Whether every installed page is to be told of; else those alone that somebody may wait for. */
  readonly trigger: boolean
  /** A host page is in place, since then (milliseconds). */
  readonly onPlaced: (pages: BlockPages, host: number, at?: number) => void
  /** The backlog has the rest of a request. */
  readonly onUnsent: () => void
  /** Events were read that are to be served. */
  readonly onEvents: () => void
  /** Bytes came; what is left of them is in the input. */
  readonly onBytes: (count: number) => void
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
  const { backlog, blocks, counters, input, intake, link, now, onBytes, onEvents, onPlaced, onUnsent } = options
  const { reader, ready, states, targetPageSize, trigger, uffd } = options
  const { fetch } = uffd
  const { simple } = umem
  if (fetch === undefined || simple?.command === undefined || targetPageSize > MOST_PAGE_BYTES) return () => undefined
  const plan = new Float64Array(Fetch.words + LOG_WORDS * PageExchange.LOG_ENTRIES)
  plan[Fetch.pageSize] = targetPageSize
  plan[Fetch.pageFlags] = simple.pageFlags
  plan[Fetch.fillFlags] = simple.fillFlags
  plan[Fetch.command] = simple.command

  /** A thread waits for a page, which was asked for. */
  const asked = (pages: BlockPages, host: number, at: number) => {
    if (pages.table.fault(host) === "request") intake.requested(pages)
    intake.waits(pages, host, at)
  }

  /** A page was asked for and installed so many microseconds later. */
  const fetched = (pages: BlockPages, host: number, micros: number) => {
    const target = pages.targetBase + host
    pages.table.fetched(host)
    states.requested(target)
    states.received(target)
    counters.fault(micros)
    if (trigger) onPlaced(pages, host)
  }

  /** A page that was asked for before was installed. */
  const placed = (pages: BlockPages, host: number, at: number) => {
    states.received(pages.targetBase + host)
    pages.table.received(host)
    onPlaced(pages, host, at)
  }

  /** Pages were installed that nobody had asked for. */
  const pushed = (pages: BlockPages, first: number, count: number, at: number) => {
    states.pushed(pages.targetBase + first, count)
    pages.table.placed(first, count)
    // Who waits for one of them has not been asked for yet.
    if (!trigger && pages.since.size === 0) return
    for (let i = 0; i < count; i++) onPlaced(pages, first + i, at)
  }

  /** Carries out what the log says has happened. The guest's next fault waits meanwhile: most entries are pairs. */
  const replay = (pages: BlockPages, count: number) => {
    const end = Fetch.words + count * LOG_WORDS
    let onDemand = 0
    let background = 0
    let fills = 0
    for (let word: number = Fetch.words; word < end; word += LOG_WORDS) {
      const kind = plan[word]!
      const host = plan[word + 1]!
      const at = plan[word + 2]! / NANOS_PER_MILLI
      const last = plan[word + 3]!
      const next = word + LOG_WORDS
      if (kind >= Logged.run) {
        pushed(pages, host, last, at)
        background += last
        if (kind === Logged.fillRun) fills += last
        continue
      }
      if (kind === Logged.placed) {
        placed(pages, host, at)
        fills += last
      } else if (next < end && plan[next] === Logged.placed && plan[next + 1] === host) {
        fetched(pages, host, (plan[next + 2]! - plan[word + 2]!) / NANOS_PER_MICRO)
        fills += plan[next + 3]!
        word = next
      } else {
        asked(pages, host, at)
        continue
      }
      onDemand++
    }
    if (onDemand > 0) {
      counters.add("onDemand", onDemand)
      intake.lastAt = now()
    }
    if (background > 0) counters.add("background", background)
    if (fills > 0) counters.add("fill", fills)
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
    replay(pages, logged)
    const unsent = plan[Fetch.unsent]!
    counters.add("bytesSent", plan[Fetch.bytesOut]!)
    if (unsent > 0) {
      backlog.resume(input.bytes.subarray(input.bytes.length - unsent))
      onUnsent()
    }
    const passed = plan[Fetch.bytesIn]!
    const unhandled = plan[Fetch.unhandled]!
    // What is left lies where the input began.
    input.offset += passed
    input.end = input.start + unhandled
    const came = passed + unhandled - have
    const events = plan[Fetch.faults]!
    if (events > 0) {
      intake.take(events)
      onEvents()
    }
    if (came > 0) onBytes(came)
    return (logged + events + came > 0 ? Came.Something : Came.Nothing) |
      (plan[Fetch.contended] === 1 ? Came.Contended : 0)
  }
}
