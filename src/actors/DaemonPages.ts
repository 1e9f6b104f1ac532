/**
 * The daemon's data path: faults in, requests out, records in, pages out. Everything here runs inside a readiness callback
 * or between two steps of the daemon's fiber; nothing waits. What the kernel puts off is kept and tried again, what the
 * link does not take is kept up to a bound, and above that bound faults become bits: suspension stops forwarding, never
 * reading.
 *
 * Hot path: no Effect per page.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { errnoName } from "../native/Errno.ts"
import { Bitmap } from "../protocol/Bitmap.ts"
import { PageTable } from "../protocol/umem/PageTable.ts"
import * as RamStream from "../protocol/umem/RamStream.ts"
import * as Request from "../protocol/umem/Request.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import { Event, EVENT_WORDS, type FaultChannel, type RegisteredBlock } from "../services/Userfaultfd.ts"

/** Bytes read from the link in one turn of the event loop. */
const READ_BYTES = 128 * 1024
/** Backlog toward the source above which faults are only noted (bytes): 33280 requests of 16 bytes. */
export const PENDING_SIZE_MAX = 532480
/** Fault events looked at in one turn. */
const MAX_REQUESTS = 33280
/** Pages of one request or removal; their message takes the room below. */
const MAX_ASKED = 4000
const REQUEST_ROOM = 64 * 1024

const EAGAIN = -11
const EEXIST = -17
const ENOENT = -2
const ESRCH = -3

interface BlockPages {
  readonly block: RegisteredBlock
  readonly table: PageTable
  /** Number of the block's first host page over all blocks. */
  readonly base: number
  /** Host pages whose fault could not be forwarded yet. */
  readonly suspended: Bitmap
  /** Target pages whose removal could not be told yet. */
  readonly removalDue: Bitmap
  /** Host pages that the guest's side has touched or given back. */
  readonly taken: Bitmap
  /** Host pages to be answered with zeros as soon as the kernel takes it. */
  readonly zeroDue: Bitmap
  /** Host pages complete and not taken by the kernel yet, with their bytes. While there is one the link is not read. */
  readonly installDue: Map<number, Uint8Array>
  /** Host pages under assembly, for target pages smaller than host pages. */
  readonly staging: Map<number, Uint8Array>
  /** Clock milliseconds of the first fault on a host page that is waited for. */
  readonly since: Map<number, number>
}

export interface Options {
  readonly uffd: FaultChannel
  readonly link: Link
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly targetPageSize: number
  readonly hostPageSize: number
  readonly counters: DaemonCounters
  /** Whether installed pages are noted for TRIGGER_PAGE_FAULT. */
  readonly trigger: boolean
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
  readonly faultedAll: () => boolean
  /** The guest is going away: faults are not forwarded any more. */
  readonly stopServing: () => void
  /** Global host page numbers that the guest's side has touched or given back. */
  readonly taken: (pages: Float64Array) => void
  readonly hasTriggers: () => boolean
  readonly takeTriggers: (most: number) => Float64Array
  readonly close: () => void
}

/** What became of one try to install. */
type Installed = "done" | "later" | "gone"

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<DaemonPages> {
  const { counters, hostPageSize, link, targetPageSize, trigger, uffd, wake } = options
  const clock = yield* Clock.Clock
  const retryLatch = Latch.makeUnsafe(false)
  const now = () => Number(clock.currentTimeNanosUnsafe()) / 1e6

  let hostPages = 0
  let targetPages = 0
  const blocks = options.blocks.map((block): BlockPages => {
    const table = new PageTable({ length: block.length, targetPageSize, hostPageSize })
    const base = hostPages
    hostPages += table.geometry.hostPages
    targetPages += table.geometry.targetPages
    return {
      block,
      table,
      base,
      suspended: new Bitmap(table.geometry.hostPages),
      removalDue: new Bitmap(table.geometry.targetPages),
      taken: new Bitmap(table.geometry.hostPages),
      zeroDue: new Bitmap(table.geometry.hostPages),
      installDue: new Map(),
      staging: new Map(),
      since: new Map()
    }
  })
  const byName = new Map(blocks.map((pages) => [pages.block.idstr, pages]))
  counters.set("total", targetPages)

  const decoder = RamStream.decoder({ blocks: options.blocks, targetPageSize, phase: "postcopy" })
  const requests = Request.encoder()
  const input = new Uint8Array(READ_BYTES)
  const fillPage = new Uint8Array(hostPageSize)
  /** Requests the link has not taken. */
  const out = new Uint8Array(PENDING_SIZE_MAX + 2 * REQUEST_ROOM)
  let outAt = 0
  let outEnd = 0
  /** Faults and removals that wait for the backlog to shrink. */
  let noted = 0
  let putOff = 0

  let serving = true
  let eocQueued = false
  let eocDone = false
  let eosSeen = false
  let inputEnded = false
  let failure: { readonly detail: string; readonly lost: boolean } | undefined
  let completeTold = false
  const triggers: Array<number> = []
  let takenCount = 0

  const fail = (detail: string, lost: boolean) => {
    failure ??= { detail, lost }
    watch()
    wake()
  }

  // ------------------------------------------------------------------------------------------------ link, outgoing

  const watch = () => {
    const reading = !inputEnded && failure === undefined && putOff === 0
    link.watch(reading, outAt < outEnd && failure === undefined)
  }

  const compact = () => {
    if (outAt === 0) return
    out.copyWithin(0, outAt, outEnd)
    outEnd -= outAt
    outAt = 0
  }

  const flush = () => {
    while (outAt < outEnd && failure === undefined) {
      const n = link.write(out, outAt, outEnd - outAt)
      if (n === AGAIN) break
      if (n <= 0) {
        // What was to be said cannot be said any more; what the peer has sent may still be read, and tells the rest.
        outAt = outEnd = 0
        if (eocQueued) break
        fail(`the connection to the source failed: ${errnoName(n === 0 ? 5 : -n)}`, true)
        return
      }
      outAt += n
      counters.add("bytesSent", n)
    }
    if (outAt === outEnd) {
      outAt = outEnd = 0
      if (eocQueued && !eocDone) {
        eocDone = true
        wake()
      }
    }
    watch()
  }

  /** Puts messages behind what is waiting; false when there is no room for them. */
  const put = (kind: Request.Kind, pages: BlockPages, targets: ReadonlyArray<number>): boolean => {
    if (outEnd + requests.size(kind, pages.block.idstr, targets.length) > out.length) compact()
    const n = requests.write(out, outEnd, kind, pages.block.idstr, targets, targets.length)
    if (n < 0) return false
    outEnd += n
    return true
  }

  /** Asks for target pages. The caller has seen to it that the backlog is below its mark. */
  const request = (pages: BlockPages, targets: ReadonlyArray<number>) => {
    if (!eocQueued && serving) put("onDemand", pages, targets)
  }

  const tellRemoved = (pages: BlockPages, targets: ReadonlyArray<number>) => {
    if (eocQueued || targets.length === 0 || put("remove", pages, targets)) return
    for (const target of targets) if (!pages.removalDue.testAndSet(target)) noted++
  }

  const backlog = () => outEnd - outAt

  // ------------------------------------------------------------------------------------------------ installing

  const putOffOne = () => {
    putOff++
    retryLatch.openUnsafe()
  }

  /** Judges a result of COPY, ZEROPAGE or CONTINUE on one host page. */
  const judge = (address: number, result: number): Installed => {
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
        fail("the guest's process is gone", false)
        return "gone"
      default:
        fail(`the kernel refused a page at 0x${address.toString(16)}: ${errnoName(-result)}`, false)
        return "gone"
    }
  }

  const answered = (pages: BlockPages, host: number) => {
    const since = pages.since.get(host)
    if (since === undefined) return
    pages.since.delete(host)
    counters.add("outstanding", -1)
    counters.fault((now() - since) * 1000)
  }

  const placed = (pages: BlockPages, host: number) => {
    pages.table.installed(host)
    answered(pages, host)
    if (trigger) triggers.push(pages.base + host)
  }

  /** Installs one complete host page; keeps its bytes when the kernel puts it off. */
  const install = (pages: BlockPages, host: number, bytes: Uint8Array, offset: number, zero: boolean) => {
    const address = pages.block.address + host * hostPageSize
    const once = () =>
      judge(address, zero ? uffd.zeropage(address, hostPageSize) : uffd.copy(address, bytes, offset, hostPageSize))
    let result = once()
    if (result === "later") {
      // An unread removal makes every COPY fail, and it may be of this very page.
      readEvents()
      if (!pages.table.installable(host)) return
      result = once()
    }
    if (result === "done") placed(pages, host)
    else if (result === "later") {
      pages.installDue.set(host, bytes.slice(offset, offset + hostPageSize))
      putOffOne()
    } else if (failure === undefined) remove(pages, host, 1)
  }

  const zero = (pages: BlockPages, host: number) => {
    const address = pages.block.address + host * hostPageSize
    const result = judge(address, uffd.zeropage(address, hostPageSize))
    if (result === "later") {
      if (!pages.zeroDue.testAndSet(host)) putOffOne()
    } else answered(pages, host)
  }

  // ------------------------------------------------------------------------------------------------ removals

  /** Host pages that the guest gave back, or that are not its memory any more. */
  const remove = (pages: BlockPages, first: number, count: number) => {
    const { table } = pages
    table.remove(first, count)
    for (const host of pages.installDue.keys()) if (!table.installable(host) && pages.installDue.delete(host)) putOff--
    for (const host of pages.staging.keys()) if (table.isRemoved(host)) pages.staging.delete(host)
    if (noted > 0) {
      for (
        let host = pages.suspended.nextSet(first);
        host >= 0 && host < first + count;
        host = pages.suspended.nextSet(host + 1)
      ) {
        pages.suspended.clear(host)
        noted--
      }
    }
    // One message's worth at a time: a whole block may be given back at once.
    for (let at = 0; at < table.newTargets.length; at += MAX_ASKED) {
      tellRemoved(pages, table.newTargets.slice(at, at + MAX_ASKED))
    }
    for (let i = 0; i < table.waiters.length; i++) zero(pages, table.waiters[i]!)
    if (trigger) {
      for (let host = first; host < Math.min(first + count, table.geometry.hostPages); host++) {
        markFaulted(pages, host)
      }
    }
  }

  const removeRange = (start: number, end: number) => {
    for (const pages of blocks) {
      const { address, length } = pages.block
      const first = Math.max(0, Math.floor((start - address) / hostPageSize))
      const past = Math.ceil((Math.min(end, address + length) - address) / hostPageSize)
      if (past > first) remove(pages, first, past - first)
    }
    counters.set("removed", blocks.reduce((sum, { table }) => sum + table.removedTargets, 0))
    checkComplete()
  }

  // ------------------------------------------------------------------------------------------------ faults

  const faults: Array<number> = []

  /** Reads the userfaultfd empty. Removals apply at once, whatever came first; faults are kept for `serveFaults`. */
  const take = (count: number) => {
    const { ring } = uffd
    for (let i = 0, at = 0; i < count; i++, at += EVENT_WORDS) {
      if (ring[at] === Event.Remove || ring[at] === Event.Unmap) removeRange(ring[at + 1]!, ring[at + 2]!)
      else if (ring[at] === Event.PageFault) faults.push(ring[at + 2]!)
    }
  }

  const readEvents = () => {
    while (faults.length < MAX_REQUESTS) {
      const n = uffd.drain()
      if (n <= 0) return
      take(n)
    }
  }

  let asking: BlockPages | undefined
  const asked: Array<number> = []
  const ask = () => {
    if (asking !== undefined && asked.length > 0) request(asking, asked)
    asked.length = 0
    asking = undefined
  }

  const serveFault = (address: number) => {
    const pages = blocks.find(({ block }) =>
      address >= block.address && address < block.address + Math.ceil(block.length / hostPageSize) * hostPageSize
    )
    if (pages === undefined) return
    const host = Math.floor((address - pages.block.address) / hostPageSize)
    const due = pages.installDue.has(host)
    const answer = pages.table.fault(host)
    switch (answer) {
      case "installed":
        uffd.wake(pages.block.address + host * hostPageSize, hostPageSize)
        return
      case "removed":
        if (!pages.zeroDue.test(host)) zero(pages, host)
        return
      default:
        if (!pages.since.has(host)) {
          pages.since.set(host, now())
          counters.add("outstanding", 1)
        }
        if (answer === "known" || due) return
        if (backlog() > PENDING_SIZE_MAX) {
          if (!pages.suspended.testAndSet(host)) noted++
          return
        }
        if (asking !== pages) ask()
        asking = pages
        for (const target of pages.table.newTargets) asked.push(target)
        if (asked.length >= MAX_ASKED) ask()
    }
  }

  const serveFaults = () => {
    for (let i = 0; i < faults.length; i++) serveFault(faults[i]!)
    faults.length = 0
    ask()
    flush()
  }

  /** Forwards faults and removals that were only noted, once the backlog allows. */
  const forwardNoted = () => {
    for (const pages of blocks) {
      for (let target = pages.removalDue.nextSet(0); target >= 0; target = pages.removalDue.nextSet(target + 1)) {
        if (backlog() > PENDING_SIZE_MAX) return
        pages.removalDue.clear(target)
        noted--
        tellRemoved(pages, [target])
      }
      for (let host = pages.suspended.nextSet(0); host >= 0; host = pages.suspended.nextSet(host + 1)) {
        if (backlog() > PENDING_SIZE_MAX) return
        pages.suspended.clear(host)
        noted--
        const targets: Array<number> = []
        const [first, count] = pages.table.geometry.hostToTargets(host)
        for (let target = first; target < first + count; target++) {
          if (pages.table.wants(target)) targets.push(target)
        }
        if (targets.length > 0) request(pages, targets)
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ records

  const count = (pages: BlockPages, target: number, isFill: boolean) => {
    counters.add(pages.table.isRequested(target) ? "onDemand" : "background", 1)
    if (isFill) counters.add("fill", 1)
  }

  /** Takes one target page and installs every host page that it completes. */
  const arrive = (pages: BlockPages, target: number, bytes: Uint8Array, isFill: boolean, byte: number) => {
    const { staging, table } = pages
    if (!table.wants(target)) return
    count(pages, target, isFill)
    if (targetPageSize < hostPageSize) {
      const host = table.geometry.firstHost(target)
      let staged = staging.get(host)
      if (staged === undefined) {
        staged = new Uint8Array(hostPageSize)
        staging.set(host, staged)
      }
      staged.set(bytes.subarray(0, targetPageSize), (target - table.geometry.firstTarget(host)) * targetPageSize)
      if (table.received(target) === "stage") return
      staging.delete(host)
      if (table.installable(host)) install(pages, host, staged, 0, false)
      return
    }
    table.received(target)
    const end = table.endHost(target)
    for (let host = table.firstHost(target), at = 0; host < end; host++, at += hostPageSize) {
      if (table.installable(host)) install(pages, host, bytes, at, isFill && byte === 0)
    }
  }

  const fillBytes = targetPageSize > hostPageSize ? new Uint8Array(targetPageSize) : fillPage

  const decode = () => {
    while (putOff === 0 && failure === undefined && !inputEnded) {
      const outcome = decoder.next()
      switch (outcome._tag) {
        case "NeedMore":
          return
        case "Message": {
          const record = outcome.message
          if (record._tag === "Page") {
            arrive(byName.get(record.idstr)!, record.address / targetPageSize, record.data, false, 0)
          } else if (record._tag === "Fill") {
            fillBytes.fill(record.byte)
            arrive(byName.get(record.idstr)!, record.address / targetPageSize, fillBytes, true, record.byte)
          } else if (record._tag === "Eos") {
            eosSeen = true
            inputEnded = true
            wake()
          }
          break
        }
        case "Malformed":
          inputEnded = true
          fail(
            outcome.truncated
              ? `the source closed the connection inside a page record (byte ${outcome.offset} of the page stream)`
              : `the source sent a page record that cannot be: ${outcome.message} (byte ${outcome.offset} of the page stream)`,
            true
          )
          return
        case "End":
          inputEnded = true
          fail("the source closed the connection before the end of the page stream", true)
          return
      }
    }
  }

  function checkComplete() {
    if (completeTold) return
    for (const { table } of blocks) if (!table.complete) return
    completeTold = true
    wake()
  }

  const read = () => {
    if (inputEnded || failure !== undefined || putOff > 0) return
    const n = link.read(input, 0, input.length)
    if (n === AGAIN) return
    if (n < 0) {
      inputEnded = true
      fail(`the connection to the source failed: ${errnoName(-n)}`, true)
      return
    }
    counters.set("lastHeardMillis", clock.currentTimeMillisUnsafe())
    if (n === 0) decoder.finish()
    else {
      counters.add("bytesReceived", n)
      decoder.push(n === input.length ? input : input.subarray(0, n))
    }
    decode()
    if (faults.length > 0) serveFaults()
    checkComplete()
    if (triggers.length > 0) wake()
  }

  const retry = () => {
    if (failure !== undefined) return
    readEvents()
    for (const pages of blocks) {
      for (let host = pages.zeroDue.nextSet(0); host >= 0; host = pages.zeroDue.nextSet(host + 1)) {
        pages.zeroDue.clear(host)
        putOff--
        zero(pages, host)
      }
      for (const [host, bytes] of Array.from(pages.installDue)) {
        // An earlier one's events may have removed it meanwhile.
        if (!pages.installDue.delete(host)) continue
        putOff--
        install(pages, host, bytes, 0, false)
      }
    }
    if (putOff === 0) {
      retryLatch.closeUnsafe()
      decode()
    }
    serveFaults()
    checkComplete()
    watch()
  }

  const markFaulted = (pages: BlockPages, host: number) => {
    if (pages.taken.testAndSet(host)) return
    takenCount++
    if (takenCount === hostPages) wake()
  }

  /** Global host page numbers from the guest's side: taken there, or given back. Others than exist are ignored. */
  const taken = (list: Float64Array) => {
    for (const page of list) {
      const pages = blocks.findLast(({ base }) => page >= base)
      if (pages !== undefined && page - pages.base < pages.table.geometry.hostPages) {
        markFaulted(pages, page - pages.base)
      }
    }
  }

  return {
    begin: (remainder) => {
      counters.set("lastHeardMillis", clock.currentTimeMillisUnsafe())
      counters.add("bytesReceived", remainder.length)
      if (remainder.length > 0) decoder.push(remainder)
      decode()
      // A sign of life that sources of 2011 accept: from here on the source knows that the guest runs.
      out.set(requests.init(), outEnd++)
      uffd.attach((n) => {
        if (n < 0) {
          fail(`the userfaultfd failed: ${errnoName(-n)}`, false)
          return
        }
        take(n)
        readEvents()
        serveFaults()
      })
      link.attach((readable, writable) => {
        if (writable) {
          if (noted > 0) forwardNoted()
          flush()
        }
        if (readable) read()
      })
      flush()
      checkComplete()
    },
    retryWanted: retryLatch.await,
    retry,
    queueEoc: () => {
      if (eocQueued) return
      if (outEnd + 1 > out.length) compact()
      out.set(requests.eoc(), outEnd++)
      eocQueued = true
      flush()
    },
    eocWritten: () => eocDone,
    endOfStream: () => eosSeen,
    failure: () => failure,
    complete: () => completeTold,
    faultedAll: () => completeTold && takenCount === hostPages,
    stopServing: () => {
      serving = false
    },
    taken,
    hasTriggers: () => triggers.length > 0,
    takeTriggers: (most) => Float64Array.from(triggers.splice(0, most)),
    close: () => {
      failure ??= { detail: "closed", lost: false }
      uffd.close()
      link.close()
    }
  }
})
