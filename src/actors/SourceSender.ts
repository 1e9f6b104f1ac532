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
import { MalformedInput, type Reason } from "../MigrationError.ts"
import { Bitmap } from "../protocol/Bitmap.ts"
import type { Dialect, PageEncoder, PagesAsked, SourceRequest } from "../protocol/Dialect.ts"
import * as PoState from "../protocol/umem/PoState.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import type { Link } from "../services/Link.ts"
import type { RateLimit } from "../services/RateLimit.ts"
import { AskedPages } from "./AskedPages.ts"
import type { PageServer, RequestSource, SenderMessage } from "./Mailboxes.ts"
import { type PageName, PageOrder } from "./PageOrder.ts"
import * as SenderLane from "./SenderLane.ts"
import type { BlockState } from "./SenderLane.ts"

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
  readonly dialect: Dialect
  readonly link: Link
  readonly blocks: ReadonlyArray<SourceBlock>
  readonly targetPageSize: number
  /** False: only what is asked for is sent. */
  readonly background: boolean
  readonly rate: RateLimit
  readonly inbox: Queue.Dequeue<SenderMessage>
  /** Pages that the destination has already, a bitmap a block: they are not sent. */
  readonly received?: ReadonlyArray<Bitmap>
  /** Pages that are pushed before all others, in this order, also without background. */
  readonly first?: ReadonlyArray<PageName>
  /** A second connection, for pages that were asked for. */
  readonly urgent?: { readonly link: Link; readonly encoder: PageEncoder }
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
}

export interface SourceSender extends PageServer {
  /** Marks every page dirty and begins. `requests` is looked at between chunks. */
  readonly begin: (requests: RequestSource) => void
  /** Goes on after the link became writable or the budget was refilled. */
  readonly pump: () => void
  /** From now on what nobody asked for is sent, too. */
  readonly sendRest: () => void
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

/** Units that the destination has whole need not be sent; one that it has a part of is sent again whole. */
const clearUnits = ({ dirty, unit }: BlockState, received: Bitmap): void => {
  for (let page = 0; page < dirty.length; page += unit) {
    const last = Math.min(page + unit, dirty.length)
    const missing = received.nextClear(page)
    if (missing >= 0 && missing < last) continue
    for (let one = page; one < last; one++) dirty.clear(one)
  }
}

export const make = (options: Options): SourceSender => {
  const { dialect, inbox, link, now, rate, targetPageSize, urgent } = options
  let { background } = options

  let total = 0
  const states: Array<BlockState> = options.blocks.map((block) => {
    const pages = Math.ceil(block.length / targetPageSize)
    const unit = Math.max(1, (block.hostPageSize ?? 0) / targetPageSize)
    const state = { block, dirty: new Bitmap(pages), base: total, unit }
    total += pages
    return state
  })
  const byName = new Map(states.map((state) => [state.block.idstr, state]))
  const asked = new AskedPages(total)
  const order = new PageOrder(states, options.first ?? [])
  let dirty = 0

  let onDemand = 0
  let backgroundPages = 0
  let fill = 0
  let removed = 0
  let bytesSent = 0

  let po: PoState.PoState = PoState.begin.state
  const held = Latch.makeUnsafe(false)
  let beganAt = 0
  let askedAt = -Infinity
  let requests: RequestSource = { poll: () => {} }
  let begun = false
  let pumping = false
  let eosQueued = false
  let urgentEnded = false
  let failure: Reason | undefined
  /** Whether the pages being encoded into the main lane were asked for. */
  let wanted = false
  /** Resumes the actor's fiber: set while it waits for something the data path will bring about. */
  let wake: () => void = () => {}

  const lane = (on: Link, encoder: PageEncoder, isWanted: () => boolean) => {
    const onPage = (state: BlockState, page: number, filled: boolean) => {
      if (state.dirty.testAndClear(page)) dirty--
      if (filled) fill++
      if (isWanted()) onDemand++
      else backgroundPages++
    }
    return SenderLane.make({ link: on, encoder, targetPageSize, capacity: DEMAND_CHUNK, onPage })
  }
  const main = lane(link, dialect.encoder({ targetPageSize }), () => wanted)
  /** Where pages that were asked for go. */
  const quick = urgent === undefined ? main : lane(urgent.link, urgent.encoder, () => true)

  /** `goOn`: there is more to send than what is encoded, and the link may take it at once. */
  const watch = (writable: boolean, goOn = false) => {
    link.watch(true, writable && (goOn || main.pending() > 0))
    if (urgent !== undefined) urgent.link.watch(false, writable && quick.pending() > 0)
  }

  const fail = (reason: Reason) => {
    failure ??= reason
    link.watch(false, false)
    urgent?.link.watch(false, false)
    wake()
  }

  const emit = (on: SenderLane.SenderLane, global: number, limit: number): void => {
    let at = states.length - 1
    while (states[at]!.base > global) at--
    const state = states[at]!
    const page = global - state.base
    if (!state.dirty.test(page)) return
    const failed = on.emit(state, page, limit)
    if (failed !== undefined) fail(failed)
  }

  const proceed = (on: SenderLane.SenderLane, limit: number): void => {
    const failed = on.proceed(limit)
    if (failed !== undefined) fail(failed)
  }

  /** Encodes pages while `next` names any and the lane has room. */
  const fillFrom = (on: SenderLane.SenderLane, next: () => number, limit: number) => {
    while (on.pending() < limit && !on.midUnit() && failure === undefined) {
      const global = next()
      if (global < 0) break
      emit(on, global, limit)
    }
  }

  const fillWanted = (on: SenderLane.SenderLane) => {
    if (on === main) wanted = true
    fillFrom(on, () => asked.take(), DEMAND_CHUNK)
  }

  /** Encodes what nobody asked for. */
  const fillUnasked = (next: () => number) => {
    wanted = false
    fillFrom(main, next, BACKGROUND_CHUNK)
  }

  const markAllDirty = () => {
    for (const [i, state] of states.entries()) {
      state.dirty.setAll()
      const received = options.received?.[i]
      if (received !== undefined) clearUnits(state, received)
      dirty += state.dirty.count
    }
  }

  const queueEos = () => {
    if (eosQueued) return
    eosQueued = true
    main.end()
    wake()
  }

  /** What nobody asked for, unless the budget is spent or the guest is about to ask for more. */
  const sendBackground = () => {
    if (!rate.open()) return
    fillUnasked(() => order.nextFirst())
    if (main.pending() > 0 || !background) return
    const time = now()
    if (time - askedAt < QUIET_MILLIS && time - beganAt < FIRST_STEPS_MILLIS) held.openUnsafe()
    else fillUnasked(() => dirty > 0 ? order.next() : -1)
  }

  const want = (state: BlockState, pages: ArrayLike<number>) => {
    askedAt = now()
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!
      if (state.dirty.test(page)) asked.add(state.base + page)
    }
  }

  const clear = (state: BlockState, pages: ArrayLike<number>) => {
    for (let i = 0; i < pages.length; i++) {
      if (!state.dirty.testAndClear(pages[i]!)) continue
      dirty--
      removed++
    }
  }

  /** Carries out what a transition asks for. `request` is the event's, if it was one. */
  const advance = (event: PoState.PoEvent, request?: PagesAsked) => {
    const { actions, state } = PoState.transition(po, event)
    po = state
    for (const action of actions) {
      switch (action) {
        case "ServePages":
          want(byName.get(request!.idstr)!, request!.pages)
          break
        case "ClearDirty":
          clear(byName.get(request!.idstr)!, request!.pages)
          break
        case "SendBackground":
          sendBackground()
          break
        case "QueueEos":
          queueEos()
          break
      }
    }
  }

  /** Puts the next records into the main lane's empty buffer. */
  const refill = () => {
    if (eosQueued || !begun) return
    if (PoState.servesRequests(po)) {
      // A unit that was begun goes on first: nothing may stand between its pages.
      if (main.midUnit()) proceed(main, BACKGROUND_CHUNK)
      else if (quick === main) fillWanted(main)
      if (main.pending() > 0) return
      if (dirty === 0 && (quick.midUnit() || quick.pending() > 0)) return
    }
    advance({ _tag: "Tick", background: background || order.hasFirst, dirty })
  }

  const refillQuick = () => {
    if (quick === main || urgentEnded || !begun) return
    if (eosQueued) {
      // The end of this channel follows that of the main one, which the destination reads first.
      if (main.pending() > 0) return
      urgentEnded = true
      quick.end()
    } else if (quick.midUnit()) proceed(quick, DEMAND_CHUNK)
    else fillWanted(quick)
  }

  /** Writes what a lane holds, once; bytes taken. */
  const flush = (on: SenderLane.SenderLane): number => {
    if (on.pending() === 0) return 0
    const n = on.flush()
    if (typeof n !== "number") {
      fail(n)
      return 0
    }
    if (n <= 0) return 0
    bytesSent += n
    rate.charge(n)
    return n
  }

  const pump = () => {
    if (pumping || failure !== undefined) return
    pumping = true
    let turn = TURN_BYTES
    while (failure === undefined) {
      if (main.pending() === 0 || quick.pending() === 0) requests.poll()
      if (quick !== main && quick.pending() === 0) refillQuick()
      if (main.pending() === 0) refill()
      if (failure !== undefined) break
      if (main.pending() === 0 && quick.pending() === 0 && (!eosQueued || urgentEnded || quick === main)) {
        watch(false)
        wake()
        break
      }
      const n = flush(main) + (quick === main ? 0 : flush(quick))
      if (failure !== undefined) break
      turn -= n
      if (n === 0 && main.pending() + quick.pending() > 0 || turn <= 0) {
        watch(true, turn <= 0)
        break
      }
    }
    pumping = false
  }

  const serve = (request: SourceRequest) => {
    if (request._tag === "Failed") return
    advance({ _tag: request._tag }, "pages" in request ? request : undefined)
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
    while (main.pending() > 0 || !eosQueued || (quick !== main && (quick.pending() > 0 || !urgentEnded))) {
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
    // Whatever state that leads to: without the destination's word its pages are not known to have arrived.
    if (message._tag !== "Eoc") {
      advance({ _tag: message._tag })
      return yield* message.reason
    }
    if (dirty > 0 && !dialect.mayEndEarly) {
      return yield* new MalformedInput({
        offset: -1,
        detail: `the destination says that it has everything, and ${dirty} pages were not sent to it`
      })
    }
    advance({ _tag: "Eoc" })
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
      for (const action of PoState.begin.actions) if (action === "MarkAllDirty") markAllDirty()
      begun = true
      pump()
    },
    sendRest: () => {
      background = true
      pump()
    },
    unsent: () => states.map((state) => state.dirty),
    progress: () => ({ total, onDemand, background: backgroundPages, fill, removed, dirty, bytesSent })
  }
}
