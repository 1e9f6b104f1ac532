/**
 * The daemon's data path: faults in, requests out, records in, pages out. Everything here runs inside a readiness callback
 * or between two steps of the daemon's fiber; nothing waits. What the kernel puts off is the installer's to keep, what the
 * link does not take is the backlog's: suspension stops forwarding, never reading.
 *
 * Hot path: no Effect per page.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { errnoName } from "../native/Errno.ts"
import { ReceiveBuffer } from "../protocol/ReceiveBuffer.ts"
import { RamReader, Read } from "../protocol/umem/RamReader.ts"
import { type BusyPoll, lingering, type Quick, Ready } from "../services/BusyPoll.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import { PageStates } from "../services/PageStates.ts"
import { Event, EVENT_WORDS, type FaultChannel, type RegisteredBlock } from "../services/Userfaultfd.ts"
import * as Blocks from "./BlockPages.ts"
import { PageInstaller } from "./PageInstaller.ts"
import * as QuickPages from "./QuickPages.ts"
import { MAX_ASKED, RequestBacklog } from "./RequestBacklog.ts"

type BlockPages = Blocks.BlockPages

/** Bytes read from the link in one turn of the event loop. */
const READ_BYTES = 128 * 1024
/** Pages installed between two looks at the userfaultfd: what a fault waits for at most. */
const PAGES_BETWEEN_LOOKS = 16
/** The same for zeros, which cost a tenth. */
const ZEROS_BETWEEN_LOOKS = 256
/** Fault events looked at in one turn. */
const MAX_REQUESTS = 33280

export interface Options {
  readonly uffd: FaultChannel
  readonly link: Link
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly targetPageSize: number
  readonly counters: DaemonCounters
  /** For whoever draws a map of the memory. */
  readonly states?: PageStates | undefined
  /** Whether installed pages are noted for TRIGGER_PAGE_FAULT. */
  readonly trigger: boolean
  /** Waits without sleeping for faults (the first) or bytes from the source (the second). Default: sleeps at once. */
  readonly busyPoll?: BusyPoll | undefined
  /** Milliseconds of a clock that never goes back. Default: that of the fiber. */
  readonly now?: (() => number) | undefined
  /** Tells the fiber that something it looks at has changed. */
  readonly wake: () => void
}

export interface DaemonPages {
  /** Starts serving; the bytes read before the handover come first. */
  readonly begin: (remainder: Uint8Array) => void
  /** Completes when something was put off. */
  readonly retryWanted: Effect.Effect<void>
  readonly retry: () => void
  readonly queueEoc: () => void
  readonly eocWritten: () => boolean
  readonly endOfStream: () => boolean
  /** Why the data path stopped, in one sentence; `lost`: because of the link, not of the kernel. */
  readonly failure: () => { readonly detail: string; readonly lost: boolean } | undefined
  /** Every page is installed or removed. */
  readonly complete: () => boolean
  /** Every page is known to have been taken by the guest's side, or to be removed. */
  readonly takenAll: () => boolean
  /** The guest is going away: faults are not forwarded any more. */
  readonly stopServing: () => void
  /** Global host page numbers that the guest's side has touched or given back. */
  readonly taken: (pages: Float64Array) => void
  readonly hasTriggers: () => boolean
  readonly takeTriggers: (most: number) => Float64Array
}

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<DaemonPages> {
  const { busyPoll, counters, link, targetPageSize, trigger, uffd, wake } = options
  const clock = yield* Clock.Clock
  const now = options.now ?? (() => Number(clock.currentTimeNanosUnsafe()) / 1e6)

  const { blocks, hostPages, targetPages } = Blocks.make(options.blocks, targetPageSize)
  counters.set("total", targetPages)
  const states = options.states ?? new PageStates(targetPages)

  const input = new ReceiveBuffer(0, 2 * READ_BYTES)
  const reader = new RamReader(input, { blocks: options.blocks, targetPageSize, phase: "postcopy" })
  const fillBytes = new Uint8Array(PAGES_BETWEEN_LOOKS * targetPageSize)
  let filled = 0
  let eosSeen = false
  let inputEnded = false
  let failure: { readonly detail: string; readonly lost: boolean } | undefined
  let completeTold = false
  const triggers: Array<number> = []
  let takenCount = 0
  const faults: Array<number> = []
  /** Milliseconds at the last fault: soon after it comes its answer, and after that the guest's next fault. */
  let faultAt = -Infinity

  const backlog = new RequestBacklog({ link, blocks, counters, onEoc: wake })

  const watch = () => {
    const reading = !inputEnded && failure === undefined && installer.idle
    link.watch(reading, backlog.pending && failure === undefined)
  }

  const fail = (detail: string, lost: boolean) => {
    failure ??= { detail, lost }
    watch()
    wake()
  }

  const flush = () => {
    if (failure === undefined) backlog.flush()
    watch()
  }

  // ------------------------------------------------------------------------------------------------ installing

  const answered = (pages: BlockPages, host: number, at = now()) => {
    const since = pages.since.get(host)
    if (since === undefined) return
    pages.since.delete(host)
    counters.add("outstanding", -1)
    counters.fault((at - since) * 1000)
  }

  const placed = (pages: BlockPages, host: number, at?: number) => {
    pages.table.installed(host)
    answered(pages, host, at)
    if (trigger) triggers.push(pages.base + host)
  }

  const installer: PageInstaller = new PageInstaller({
    uffd,
    readEvents: () => readEvents(),
    onPlaced: (pages, host) => placed(pages, host),
    onGone: (pages, host) => {
      if (failure === undefined) remove(pages, host, 1)
    },
    onZeroed: (pages, host) => answered(pages, host),
    fail: (detail) => fail(detail, false)
  })

  // ------------------------------------------------------------------------------------------------ removals

  const markTaken = (pages: BlockPages, host: number) => {
    if (pages.taken.testAndSet(host)) return
    takenCount++
    if (takenCount === hostPages) wake()
  }

  /** Host pages that the guest gave back, or that are not its memory any more. */
  const remove = (pages: BlockPages, first: number, count: number) => {
    const { table } = pages
    table.remove(first, count)
    const target = table.firstTarget(first)
    const past = Math.min(first + count, table.geometry.hostPages)
    states.removed(pages.targetBase + target, table.endTarget(past - 1) - target)
    installer.forgetRemoved(pages, first, count)
    backlog.forgetFaults(pages, first, count)
    backlog.tellRemoved(pages, table.newTargets)
    for (let i = 0; i < table.waiters.length; i++) installer.zero(pages, table.waiters[i]!)
    if (!trigger) return
    for (let host = first; host < past; host++) markTaken(pages, host)
  }

  const removeRange = (start: number, end: number) => {
    for (const pages of blocks) {
      const { address, hostPageSize, length } = pages.block
      const first = Math.max(0, Math.floor((start - address) / hostPageSize))
      const past = Math.ceil((Math.min(end, address + length) - address) / hostPageSize)
      if (past > first) remove(pages, first, past - first)
    }
    counters.set("removed", blocks.reduce((sum, { table }) => sum + table.removedTargets, 0))
    checkComplete()
  }

  // ------------------------------------------------------------------------------------------------ faults

  /** Removals apply at once, whatever came first; faults are kept for `serveFaults`. */
  const take = (count: number) => {
    const { ring } = uffd
    for (let i = 0, at = 0; i < count; i++, at += EVENT_WORDS) {
      if (ring[at] === Event.Remove || ring[at] === Event.Unmap) removeRange(ring[at + 1]!, ring[at + 2]!)
      else if (ring[at] === Event.PageFault) faults.push(ring[at + 2]!)
    }
  }

  const readEvents = () => {
    const full = uffd.ring.length / EVENT_WORDS
    while (faults.length < MAX_REQUESTS) {
      const n = uffd.drain()
      if (n > 0) take(n)
      // A read that does not fill the ring has read all there is.
      if (n < full) return
    }
  }

  let asking: BlockPages | undefined
  const asked: Array<number> = []
  const ask = () => {
    if (asking !== undefined && asked.length > 0) backlog.ask(asking, asked)
    asked.length = 0
    asking = undefined
  }

  const find = (address: number): BlockPages | undefined => {
    for (const pages of blocks) {
      const host = Math.floor((address - pages.block.address) / pages.block.hostPageSize)
      if (host >= 0 && host < pages.table.geometry.hostPages) return pages
    }
    return undefined
  }

  const waits = (pages: BlockPages, host: number, at: number) => {
    if (pages.since.has(host)) return
    pages.since.set(host, at)
    counters.add("outstanding", 1)
  }

  const requested = ({ table, targetBase }: BlockPages) => {
    for (let i = 0; i < table.newTargets.length; i++) states.requested(targetBase + table.newTargets[i]!)
  }

  const serveFault = (address: number) => {
    const pages = find(address)
    if (pages === undefined) return
    const { address: base, hostPageSize } = pages.block
    const host = Math.floor((address - base) / hostPageSize)
    const answer = pages.table.fault(host)
    if (answer === "installed") {
      installer.present(pages, base + host * hostPageSize)
      return
    }
    if (answer === "removed") {
      installer.zero(pages, host)
      return
    }
    waits(pages, host, now())
    if (answer === "known") return
    requested(pages)
    if (!backlog.open) {
      // Not asked for yet: should the guest give the page back meanwhile, the source has to be told.
      pages.table.unrequest()
      backlog.noteFault(pages, host)
      return
    }
    if (asking !== pages) ask()
    asking = pages
    for (let i = 0; i < pages.table.newTargets.length; i++) asked.push(pages.table.newTargets[i]!)
    if (asked.length >= MAX_ASKED) ask()
  }

  const serveFaults = () => {
    if (faults.length > 0) faultAt = now()
    for (let i = 0; i < faults.length; i++) serveFault(faults[i]!)
    faults.length = 0
    ask()
    flush()
  }

  // ------------------------------------------------------------------------------------------------ records

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
      for (let j = 0; j < inPlace; j++) placed(pages, first + i + j)
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

  /** Takes the page or fill that the reader has found, and what follows of the same kind. How many pages. */
  const takeRecords = (read: Read): number => {
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

  const decode = () => {
    let taken = 0
    while (installer.idle && failure === undefined && !inputEnded) {
      if (taken >= PAGES_BETWEEN_LOOKS) {
        taken = 0
        readEvents()
        if (faults.length > 0) serveFaults()
      }
      const read = reader.next()
      if (read === Read.Page || read === Read.Fill) taken += takeRecords(read)
      else if (read === Read.NeedMore) return
      else if (read === Read.Eos) {
        eosSeen = true
        inputEnded = true
        wake()
      } else {
        inputEnded = true
        return fail(
          `the source sent a page record that cannot be: ${reader.problem} (byte ${reader.offset} of the page stream)`,
          true
        )
      }
    }
  }

  /** The end of the connection, with everything decoded that came before it. */
  const end = () => {
    if (inputEnded) return
    inputEnded = true
    fail(
      input.available === 0 && reader.idle
        ? "the source closed the connection before the end of the page stream"
        : `the source closed the connection inside a page record (byte ${input.offset} of the page stream)`,
      true
    )
  }

  /** A block of which nothing is missing or put off needs no more events; once no block needs any, the fiber is told. */
  const checkComplete = () => {
    if (completeTold) return
    let all = true
    for (const pages of blocks) {
      if (pages.unregistered) continue
      if (!pages.table.complete || !installer.idle) all = false
      else {
        pages.unregistered = true
        uffd.unregister(pages.block.address, pages.table.hostPages * pages.block.hostPageSize)
      }
    }
    if (!all) return
    completeTold = true
    counters.set("complete", 1)
    wake()
  }

  const read = () => {
    if (inputEnded || failure !== undefined || !installer.idle) return
    input.reserve(READ_BYTES)
    const n = link.read(input.bytes, input.end, READ_BYTES)
    if (n === AGAIN) return
    if (n < 0) {
      inputEnded = true
      fail(`the connection to the source failed: ${errnoName(-n)}`, true)
      return
    }
    counters.set("lastHeardMillis", clock.currentTimeMillisUnsafe())
    if (n === 0) return end()
    counters.add("bytesReceived", n)
    input.commit(n)
    afterRecords()
  }

  const afterRecords = () => {
    decode()
    checkComplete()
    if (triggers.length > 0) wake()
    if (faults.length > 0) serveFaults()
    else watch()
  }

  const quick = QuickPages.make({
    uffd,
    link,
    blocks,
    targetPageSize,
    input,
    reader,
    backlog,
    counters,
    ready: () => !inputEnded && failure === undefined && installer.idle,
    onAsked: (pages, host, at) => {
      faultAt = now()
      if (pages.table.fault(host) === "request") requested(pages)
      waits(pages, host, at)
    },
    onFetched: (pages, host, micros) => {
      const target = pages.targetBase + host
      pages.table.fetched(host)
      states.requested(target)
      states.received(target)
      counters.fault(micros)
      if (trigger) triggers.push(pages.base + host)
    },
    onPlaced: (pages, host, at) => {
      states.received(pages.targetBase + host)
      pages.table.received(host)
      placed(pages, host, at)
    },
    onPushed: (pages, first, count, at) => {
      states.pushed(pages.targetBase + first, count)
      pages.table.placed(first, count)
      // Who waits for one of them was not heard by the source yet.
      if (pages.since.size > 0) { for (let i = 0; i < count; i++) answered(pages, first + i, at) }
      if (trigger) { for (let i = 0; i < count; i++) triggers.push(pages.base + first + i) }
    },
    onUnsent: flush,
    onEvents: (count) => {
      take(count)
      serveFaults()
    },
    onBytes: (count, asked) => {
      if (asked) faultAt = now()
      counters.set("lastHeardMillis", clock.currentTimeMillisUnsafe())
      counters.add("bytesReceived", count)
      afterRecords()
    }
  })
  let looked = false
  const lookQuickly: Quick = (nanos) => {
    const came = quick(nanos)
    if (came !== undefined) looked = (came & Ready.Dealt) !== 0
    return came
  }

  const linger = busyPoll === undefined ? () => {} : lingering({
    busyPoll,
    quick: lookQuickly,
    now,
    since: () => faultAt,
    active: () => failure === undefined && !inputEnded && installer.idle,
    act: (ready) => {
      if ((ready & Ready.First) !== 0) {
        readEvents()
        serveFaults()
      }
      if ((ready & Ready.Second) !== 0) read()
    }
  })

  return {
    begin: (remainder) => {
      counters.set("lastHeardMillis", clock.currentTimeMillisUnsafe())
      counters.add("bytesReceived", remainder.length)
      // From here on the source knows that the guest runs.
      backlog.init()
      if (remainder.length > 0) input.push(remainder)
      uffd.attach(
        (n) => {
          if (n < 0) {
            fail(`the userfaultfd failed: ${errnoName(-n)}`, false)
            return
          }
          take(n)
          // A burst that does not fill the ring was all there is.
          if (n === uffd.ring.length / EVENT_WORDS) readEvents()
          serveFaults()
          linger()
        },
        () => {
          looked = false
          // A wait that is left out looks at nothing.
          busyPoll?.(false, lookQuickly)
          if (!looked) lookQuickly(0)
          if (looked) linger()
          return looked
        }
      )
      link.attach((readable, writable) => {
        if (writable) flush()
        looked = false
        if (readable) lookQuickly(0)
        // What it finds nothing in may be the end of the stream.
        if (readable && !looked) read()
        linger()
      })
      flush()
      afterRecords()
    },
    retryWanted: installer.retryWanted.await,
    retry: () => {
      if (failure !== undefined) return installer.giveUp()
      readEvents()
      installer.retry(blocks)
      afterRecords()
      serveFaults()
      if (eosSeen) wake()
    },
    queueEoc: () => {
      backlog.eoc()
      flush()
    },
    eocWritten: () => backlog.eocWritten,
    // What is put off may be all that is left: only then it is known whether the stream was complete.
    endOfStream: () => eosSeen && installer.idle,
    failure: () => failure,
    complete: () => completeTold,
    takenAll: () => completeTold && takenCount === hostPages,
    stopServing: () => backlog.stopAsking(),
    taken: (list) => {
      for (const page of list) {
        const pages = blocks.findLast(({ base }) => page >= base)
        if (pages !== undefined && page - pages.base < pages.table.geometry.hostPages) {
          markTaken(pages, page - pages.base)
        }
      }
    },
    hasTriggers: () => triggers.length > 0,
    takeTriggers: (most) => Float64Array.from(triggers.splice(0, most))
  }
})
