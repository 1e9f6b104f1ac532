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
import { EVENT_WORDS, type FaultChannel, type RegisteredBlock } from "../services/Userfaultfd.ts"
import * as Blocks from "./BlockPages.ts"
import { FaultIntake } from "./FaultIntake.ts"
import * as PageArrivals from "./PageArrivals.ts"
import { PageInstaller } from "./PageInstaller.ts"
import * as QuickPages from "./QuickPages.ts"
import { RequestBacklog } from "./RequestBacklog.ts"

type BlockPages = Blocks.BlockPages

/** Bytes read from the link in one turn of the event loop. */
const READ_BYTES = 128 * 1024

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
  let eosSeen = false
  let inputEnded = false
  let failure: { readonly detail: string; readonly lost: boolean } | undefined
  let completeTold = false
  const triggers: Array<number> = []
  let takenCount = 0

  const backlog = new RequestBacklog({ link, blocks, counters, onEoc: wake })
  const intake = new FaultIntake({
    uffd,
    blocks,
    backlog,
    installer: () => installer,
    counters,
    states,
    now,
    onRemoved: (start, end) => removeRange(start, end)
  })

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

  const placed = (pages: BlockPages, host: number, at?: number) => {
    pages.table.installed(host)
    intake.answered(pages, host, at)
    if (trigger) triggers.push(pages.base + host)
  }

  const installer: PageInstaller = new PageInstaller({
    uffd,
    readEvents: () => intake.read(),
    onPlaced: (pages, host) => placed(pages, host),
    onGone: (pages, host) => {
      if (failure === undefined) remove(pages, host, 1)
    },
    onZeroed: (pages, host) => intake.answered(pages, host),
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

  const serveFaults = () => {
    intake.serve()
    flush()
  }

  // ------------------------------------------------------------------------------------------------ records

  const arrive = PageArrivals.make({
    blocks,
    targetPageSize,
    input,
    reader,
    installer,
    counters,
    states,
    onPlaced: placed
  })

  const decode = () => {
    let taken = 0
    while (installer.idle && failure === undefined && !inputEnded) {
      if (taken >= PageArrivals.PAGES_BETWEEN_LOOKS) {
        taken = 0
        intake.read()
        if (intake.pending) serveFaults()
      }
      const read = reader.next()
      if (read === Read.Page || read === Read.Fill) taken += arrive(read)
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
    if (intake.pending) serveFaults()
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
    intake,
    counters,
    states,
    ready: () => !inputEnded && failure === undefined && installer.idle,
    now,
    trigger,
    onPlaced: placed,
    onUnsent: flush,
    onEvents: serveFaults,
    onBytes: (count) => {
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
    since: () => intake.lastAt,
    active: () => failure === undefined && !inputEnded && installer.idle,
    act: (ready) => {
      if ((ready & Ready.First) !== 0) {
        intake.read()
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
          intake.take(n)
          // A burst that does not fill the ring was all there is.
          if (n === uffd.ring.length / EVENT_WORDS) intake.read()
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
      intake.read()
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
