/**
 * Owns the outgoing page stream of the source after the switchover: the dirty bitmaps, the pages asked for, and the
 * background cursor. Records are encoded into one small buffer and written while the socket takes them; a page asked for
 * overtakes everything but the bytes already in that buffer, and requests are looked for between any two chunks of
 * background data. One EOS ends the stream, once nothing is dirty or the destination has said that it needs no more.
 *
 * Hot path: no Effect per page.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import { LinkFailed, type Reason } from "../MigrationError.ts"
import { errnoName } from "../native/Errno.ts"
import { Bitmap } from "../protocol/Bitmap.ts"
import * as PoState from "../protocol/umem/PoState.ts"
import * as RamStream from "../protocol/umem/RamStream.ts"
import type { Request } from "../protocol/umem/Request.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import type { RateLimit } from "../services/RateLimit.ts"
import type { PageServer, RequestSource, SenderMessage } from "./Mailboxes.ts"

/** Background data encoded at once: the longest a page asked for waits in this process. */
const BACKGROUND_CHUNK = 16 * 1024
/** Requested pages encoded at once; the buffer holds this and one record. */
const DEMAND_CHUNK = 64 * 1024
/**
 * The guest's first steps at the destination are one page fault after another, and every one of them counts as downtime.
 * For this long after the switchover (milliseconds) background data waits while the guest is asking …
 */
const FIRST_STEPS_MILLIS = 100
/** … that is, until it has asked for nothing for this long. Its next fault is on its way sooner than that. */
const QUIET_MILLIS = 1
/** Bytes written in one turn of the event loop, so that timers and the control socket get theirs. */
const TURN_BYTES = 512 * 1024

export interface SenderProgress {
  readonly total: number
  readonly onDemand: number
  readonly background: number
  readonly fill: number
  readonly removed: number
  readonly dirty: number
  readonly bytesSent: number
}

export interface Options {
  readonly link: Link
  readonly blocks: ReadonlyArray<SourceBlock>
  readonly targetPageSize: number
  /** False: only what is asked for is sent. */
  readonly background: boolean
  readonly rate: RateLimit
  readonly inbox: Queue.Dequeue<SenderMessage>
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
}

export interface SourceSender extends PageServer {
  /** Marks every page dirty and begins. `requests` is looked at between chunks. */
  readonly begin: (requests: RequestSource) => void
  /** Goes on after the link became writable or the budget was refilled. */
  readonly pump: () => void
  readonly progress: () => SenderProgress
  /** Pages not sent yet, of each block in its order. */
  readonly unsent: () => ReadonlyArray<Bitmap>
  /** Lets the background go on after the guest's first steps held it up. */
  readonly holds: Effect.Effect<never>
  /**
   * The actor's life: completes when every page is sent and the destination has confirmed (EOC), and EOS is written.
   * Fails when the connection ends before that: the guest's memory must be kept.
   */
  readonly run: Effect.Effect<void, Reason>
}

interface BlockState {
  readonly block: SourceBlock
  readonly dirty: Bitmap
  /** Number of this block's first page in the numbering over all blocks. */
  readonly base: number
}

export const make = (options: Options): SourceSender => {
  const { background, inbox, link, now, rate, targetPageSize } = options
  const encoder = RamStream.encoder({ targetPageSize })
  const out = new Uint8Array(DEMAND_CHUNK + targetPageSize + RamStream.MAX_RECORD_HEADER)
  let outAt = 0
  let outEnd = 0

  let total = 0
  const states: Array<BlockState> = options.blocks.map((block) => {
    const pages = Math.ceil(block.length / targetPageSize)
    const state = { block, dirty: new Bitmap(pages), base: total }
    total += pages
    return state
  })
  const byName = new Map(states.map((state) => [state.block.idstr, state]))
  /** Pages asked for and not sent, in order; a page is in it at most once, so it is never longer than the guest. */
  const wanted: Array<number> = []
  let wantedAt = 0
  const isWanted = new Bitmap(total)
  let dirty = 0
  let cursorBlock = 0
  let cursorPage = 0

  let onDemand = 0
  let backgroundPages = 0
  let fill = 0
  let removed = 0
  let bytesSent = 0

  let po: PoState.PoState = "ACTIVE"
  const held = Latch.makeUnsafe(false)
  let beganAt = 0
  let askedAt = -Infinity
  let requests: RequestSource = { poll: () => {} }
  let begun = false
  let pumping = false
  let eosQueued = false
  let failure: Reason | undefined
  /** Resumes the actor's fiber: set while it waits for something the data path will bring about. */
  let wake: () => void = () => {}

  const fail = (reason: Reason) => {
    failure ??= reason
    link.watch(false, false)
    wake()
  }

  /** Encodes one dirty page at the end of the buffer. */
  const emit = (state: BlockState, page: number): void => {
    state.dirty.clear(page)
    dirty--
    const { block } = state
    const offset = page * targetPageSize
    const byte = block.fillByte(offset, targetPageSize)
    if (byte >= 0) {
      outEnd += encoder.fill(out, outEnd, block.idstr, offset, byte)
      fill++
      return
    }
    outEnd += encoder.page(out, outEnd, block.idstr, offset)
    const n = block.read(offset, out, outEnd, targetPageSize)
    if (n < 0) {
      fail(new LinkFailed({ code: errnoName(-n), detail: `the guest's memory (block ${block.idstr}) cannot be read` }))
      return
    }
    outEnd += targetPageSize
  }

  const find = (global: number): BlockState => {
    let at = states.length - 1
    while (states[at]!.base > global) at--
    return states[at]!
  }

  const fillWanted = () => {
    while (wantedAt < wanted.length && outEnd < DEMAND_CHUNK && failure === undefined) {
      const global = wanted[wantedAt++]!
      isWanted.clear(global)
      const state = find(global)
      const page = global - state.base
      if (!state.dirty.test(page)) continue
      onDemand++
      emit(state, page)
    }
    if (wantedAt === wanted.length) {
      wanted.length = 0
      wantedAt = 0
    }
  }

  const fillBackground = () => {
    while (outEnd < BACKGROUND_CHUNK && dirty > 0 && failure === undefined) {
      const state = states[cursorBlock]!
      const page = state.dirty.nextSet(cursorPage)
      if (page < 0) {
        cursorBlock = (cursorBlock + 1) % states.length
        cursorPage = 0
        continue
      }
      cursorPage = page + 1
      backgroundPages++
      emit(state, page)
    }
  }

  const queueEos = () => {
    if (eosQueued) return
    eosQueued = true
    outEnd += encoder.eos(out, outEnd)
  }

  /** Puts the next records into the empty buffer. */
  const refill = () => {
    outAt = 0
    outEnd = 0
    if (eosQueued || !begun) return
    if (PoState.wantsEosNow(po)) {
      queueEos()
      return
    }
    fillWanted()
    if (outEnd > 0) return
    if (dirty === 0) {
      po = PoState.transition(po, { _tag: "AllSent" }).state
      queueEos()
      wake()
    } else if (background && rate.open()) {
      const time = now()
      if (time - askedAt < QUIET_MILLIS && time - beganAt < FIRST_STEPS_MILLIS) held.openUnsafe()
      else fillBackground()
    }
  }

  const pump = () => {
    if (pumping || failure !== undefined) return
    pumping = true
    let turn = TURN_BYTES
    while (failure === undefined) {
      if (outAt === outEnd) {
        requests.poll()
        refill()
        if (outEnd === 0 || failure !== undefined) {
          link.watch(true, false)
          wake()
          break
        }
      }
      const n = link.write(out, outAt, outEnd - outAt)
      if (n === AGAIN) {
        link.watch(true, true)
        break
      }
      if (n <= 0) {
        const code = n === 0 ? "EIO" : errnoName(-n)
        fail(new LinkFailed({ code, detail: `the connection to the destination failed: ${code}` }))
        break
      }
      outAt += n
      bytesSent += n
      rate.charge(n)
      turn -= n
      if (turn <= 0) {
        link.watch(true, true)
        break
      }
    }
    pumping = false
  }

  const want = (state: BlockState, pages: ArrayLike<number>) => {
    askedAt = now()
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!
      const global = state.base + page
      if (!state.dirty.test(page) || isWanted.test(global)) continue
      isWanted.set(global)
      wanted.push(global)
    }
  }

  const serve = (request: Request) => {
    if (request._tag === "Init" || request._tag === "Eoc" || !PoState.servesRequests(po)) return
    const state = byName.get(request.idstr)
    if (state === undefined) return
    if (request._tag === "Remove") {
      for (let i = 0; i < request.pages.length; i++) {
        if (!state.dirty.testAndClear(Number(request.pages[i]))) continue
        dirty--
        removed++
      }
    } else want(state, request.pages as ArrayLike<number>)
    pump()
  }

  /** Waits until the data path calls `wake`. */
  const changed = Effect.callback<void>((resume) => {
    wake = () => {
      wake = () => {}
      resume(Effect.void)
    }
    return Effect.sync(() => {
      wake = () => {}
    })
  })

  const written = Effect.gen(function*() {
    while (outAt < outEnd || !eosQueued) {
      if (failure !== undefined) return yield* failure
      yield* changed
    }
  })

  const run = Effect.gen(function*() {
    const message = yield* Effect.raceFirst(
      Queue.take(inbox),
      Effect.gen(function*() {
        while (failure === undefined) yield* changed
        return yield* failure
      })
    )
    if (message._tag === "ReceiveFailed") {
      po = PoState.transition(po, { _tag: "ReceiveError" }).state
      return yield* message.reason
    }
    po = PoState.transition(po, { _tag: "Eoc" }).state
    pump()
    yield* written
  })

  return {
    serve,
    pump,
    run,
    holds: Effect.gen(function*() {
      while (true) {
        yield* held.await
        yield* Effect.sleep(QUIET_MILLIS)
        held.closeUnsafe()
        pump()
      }
    }),
    begin: (source) => {
      requests = source
      beganAt = now()
      for (const state of states) state.dirty.setAll()
      dirty = total
      begun = true
      pump()
    },
    unsent: () => states.map((state) => state.dirty),
    progress: () => ({ total, onDemand, background: backgroundPages, fill, removed, dirty, bytesSent })
  }
}
