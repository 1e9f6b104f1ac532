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
import { Answer, LOG_WORDS } from "../services/PageExchange.ts"
import type { RateLimit } from "../services/RateLimit.ts"
import * as LaneFill from "./LaneFill.ts"
import type { PageServer, RequestSource, SenderMessage } from "./Mailboxes.ts"
import type { PageName } from "./PageOrder.ts"
import * as SenderLane from "./SenderLane.ts"
import type { BlockState } from "./SenderLane.ts"
import { type PageSource, type Prefault, SourcePages } from "./SourcePages.ts"

/** Background data encoded at once: the longest a page asked for waits in this process. */
const BACKGROUND_CHUNK = 32 * 1024
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
  /** Pages sent with each one that is asked for, behind it and before it. Default none. */
  readonly prefault?: Prefault
  /**
   * How long the background waits for the first request after the destination's first sign of life, ms: what is sent before
   * would have to be installed first. Default: not at all.
   */
  readonly firstAskMillis?: number
  /** How long after that sign its first steps last, ms, if less than otherwise. */
  readonly firstStepsMillis?: number
  /** A second connection, for pages that were asked for. */
  readonly urgent?: { readonly link: Link; readonly encoder: PageEncoder }
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
}

export interface SourceSender extends PageServer {
  /**
   * Marks every page dirty and begins. `requests` is looked at between chunks. `quickly` pushes pages past this sender:
   * whether it had anything to do.
   */
  readonly begin: (requests: RequestSource, quickly?: () => boolean) => void
  /** The block whose pages may be sent past this sender: nothing else is to be sent before them. */
  readonly answering: () => BlockState | undefined
  /** The page from which on nobody's pages may be pushed past it, too; the number of pages when none may. */
  readonly pushing: (state: BlockState) => number
  /** Bytes that one answer may have: what the link does not take of it becomes this sender's. */
  readonly answerBytes: number
  /** Such pages were sent, as the first entries of the plan's log say, but for `rest`. */
  readonly answered: (state: BlockState, plan: Float64Array, count: number, rest: Uint8Array) => void
  /** Goes on after the link became writable or the budget was refilled. */
  readonly pump: () => void
  /** From now on what nobody asked for is sent, too. */
  readonly sendRest: () => void
  readonly progress: () => SenderProgress
  /** Pages not sent yet, of each block in its order. */
  readonly unsent: () => ReadonlyArray<Bitmap>
  /** When pages were last asked for, by the clock `now`. */
  readonly askedAt: () => number
  /** Whether the link has not taken what there is to write. */
  readonly waitsForLink: () => boolean
  /** Lets the background go on after the guest's first steps held it up. */
  readonly holds: Effect.Effect<never>
  /**
   * The actor's life: completes when every page is sent and the destination has confirmed (EOC), and EOS is written.
   * Fails when the connection ends before that: the guest's memory must be kept.
   */
  readonly run: Effect.Effect<void, Reason>
}

export const make = (options: Options): SourceSender => {
  const {
    dialect,
    firstAskMillis = 0,
    firstStepsMillis = FIRST_STEPS_MILLIS,
    inbox,
    link,
    now,
    prefault = { forward: 0, backward: 0 },
    rate,
    targetPageSize,
    urgent
  } = options
  let { background } = options

  const pages = new SourcePages(options.blocks, targetPageSize, options.first ?? [], prefault)
  const { asked, near, order, states } = pages

  let onDemand = 0
  let backgroundPages = 0
  let fill = 0
  let removed = 0
  let bytesSent = 0

  let po: PoState.PoState = PoState.begin.state
  const held = Latch.makeUnsafe(false)
  let beganAt = 0
  let askedAt = -Infinity
  /** When the destination gave its first sign of life; until then it reads nothing either. */
  let heardAt = Infinity
  let requests: RequestSource = { poll: () => {}, ended: () => false }
  let begun = false
  let pumping = false
  let quickly: (() => boolean) | undefined
  /** Whether the pages that are sent past this sender had their turn. */
  let turnOver = false
  let eosQueued = false
  let urgentEnded = false
  let failure: Reason | undefined
  /** Whether the pages being encoded into the main lane were asked for. */
  let wanted = false
  /** Resumes the actor's fiber: set while it waits for something the data path will bring about. */
  let wake: () => void = () => {}

  const lane = (on: Link, encoder: PageEncoder, isWanted: () => boolean) => {
    const onPage = (state: BlockState, page: number, filled: boolean) => {
      pages.sent(state, page)
      if (filled) fill++
      if (isWanted()) onDemand++
      else backgroundPages++
    }
    return SenderLane.make({
      link: on,
      encoder,
      simple: dialect.simple,
      targetPageSize,
      capacity: DEMAND_CHUNK,
      onPage
    })
  }
  const main = lane(link, dialect.encoder({ targetPageSize }), () => wanted)
  /** Where pages that were asked for go. */
  const quick = urgent === undefined ? main : lane(urgent.link, urgent.encoder, () => true)

  /** What has to be heard of: room for what is pending, or, where more is to be encoded, any room at all. */
  const watch = (more: boolean) => {
    link.watch(!requests.ended(), more || main.pending() > 0)
    if (urgent !== undefined) urgent.link.watch(false, quick.pending() > 0)
  }

  const fail = (reason: Reason) => {
    failure ??= reason
    link.watch(false, false)
    urgent?.link.watch(false, false)
    wake()
  }

  const proceed = (on: SenderLane.SenderLane, limit: number): void => {
    const failed = on.proceed(limit)
    if (failed !== undefined) fail(failed)
  }

  const served = new Float64Array(1)
  const fillLane = LaneFill.make({ pages, targetPageSize, capacity: DEMAND_CHUNK })

  /** Encodes pages while the source names any and the lane has room. */
  const fillFrom = (on: SenderLane.SenderLane, source: PageSource, limit: number) => {
    const failed = fillLane(on, source, limit)
    if (failed !== undefined) fail(failed)
  }

  const fillWanted = (on: SenderLane.SenderLane) => {
    if (on === main) wanted = true
    fillFrom(on, pages.askedFor, DEMAND_CHUNK)
  }

  /** Encodes what nobody asked for. */
  const fillUnasked = (source: PageSource) => {
    wanted = false
    fillFrom(main, source, BACKGROUND_CHUNK)
  }

  const queueEos = () => {
    if (eosQueued) return
    eosQueued = true
    main.end()
    wake()
  }

  /** Whether pages are sent that nobody asked for and nothing speaks for: that can change at any time. */
  const pushes = () => background && rate.background()

  /** Whether the guest at the destination is about to ask: then nothing must be in its way. */
  const firstSteps = (time: number): boolean => {
    if (time - beganAt >= FIRST_STEPS_MILLIS || time - heardAt >= firstStepsMillis) return false
    if (askedAt > -Infinity) return time - askedAt < QUIET_MILLIS
    return firstAskMillis > 0 && time - heardAt < firstAskMillis
  }

  /** What nobody asked for, unless the budget is spent or the guest is about to ask for more. */
  const sendBackground = () => {
    if (!rate.open()) return
    fillUnasked(pages.first)
    if (main.pending() === 0) fillUnasked(pages.nearby)
    if (main.pending() > 0 || !pushes()) return
    if (firstSteps(now())) held.openUnsafe()
    else if (!pushQuickly()) fillUnasked(pages.others)
  }

  /** Pages that were pushed past this sender fill the link; the event loop is due. */
  const pushQuickly = (): boolean => {
    if (!pumping || quickly === undefined || !quickly()) return false
    turnOver = true
    return true
  }

  /** Carries out what a transition asks for. `request` is the event's, if it was one. */
  const advance = (event: PoState.PoEvent, request?: PagesAsked) => {
    const { actions, state } = PoState.transition(po, event)
    po = state
    for (const action of actions) {
      switch (action) {
        case "ServePages":
          askedAt = now()
          pages.want(request!.idstr, request!.pages)
          break
        case "ClearDirty":
          removed += pages.giveUp(request!.idstr, request!.pages)
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
      if (pages.dirty === 0 && (quick.midUnit() || quick.pending() > 0)) return
    }
    advance({ _tag: "Tick", background: pushes() || order.hasFirst || !near.empty, dirty: pages.dirty })
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
    return charged(n)
  }

  const charged = (n: number): number => {
    bytesSent += n
    rate.charge(n)
    return n
  }

  /** Bytes that a lane has sent past its buffer. */
  const sentBy = (on: SenderLane.SenderLane): number => {
    const n = on.takeSent()
    return n > 0 ? charged(n) : 0
  }

  /** `polled`: requests have just been looked for. */
  const pump = (polled = false) => {
    if (pumping || failure !== undefined) return
    pumping = true
    let turn = TURN_BYTES
    let look = !polled
    while (failure === undefined) {
      if (look && (main.pending() === 0 || quick.pending() === 0)) requests.poll()
      look = true
      if (quick !== main && quick.pending() === 0) refillQuick()
      if (main.pending() === 0) refill()
      if (failure !== undefined) break
      if (turnOver) {
        turnOver = false
        // It may have brought requests that go this way.
        if (!asked.empty) continue
        watch(true)
        break
      }
      const sent = sentBy(main) + (quick === main ? 0 : sentBy(quick))
      const nothing = sent + main.pending() + quick.pending() === 0
      if (nothing && (!eosQueued || urgentEnded || quick === main)) {
        watch(false)
        // The fiber waits for failures, and for the end.
        if (eosQueued) wake()
        break
      }
      const n = flush(main) + (quick === main ? 0 : flush(quick))
      if (failure !== undefined) break
      turn -= n + sent
      if (n === 0 && main.pending() + quick.pending() > 0 || turn <= 0) {
        watch(turn <= 0)
        break
      }
    }
    pumping = false
  }

  const serve = (request: SourceRequest) => {
    if (request._tag === "Failed") return
    heardAt = Math.min(heardAt, now())
    advance({ _tag: request._tag }, "pages" in request ? request : undefined)
    pump(true)
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
    if (pages.dirty > 0 && !dialect.mayEndEarly) {
      return yield* new MalformedInput({
        offset: -1,
        detail: `the destination says that it has everything, and ${pages.dirty} pages were not sent to it`
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
    begin: (source, push) => {
      requests = source
      quickly = push
      beganAt = now()
      for (const action of PoState.begin.actions) if (action === "MarkAllDirty") pages.markAll(options.received)
      begun = true
      pump()
    },
    answering: () => {
      if (!begun || eosQueued || failure !== undefined || quick !== main || !PoState.servesRequests(po)) {
        return undefined
      }
      if (main.pending() > 0 || main.midUnit() || !asked.empty) return undefined
      const block = main.continuing()
      const state = block === undefined ? undefined : pages.named(block.idstr)
      return state?.unit === 1 ? state : undefined
    },
    pushing: (state) => {
      const none = state.dirty.length
      if (!pushes() || rate.get() !== undefined || order.hasFirst || !near.empty || firstSteps(now())) return none
      return prefault.forward + prefault.backward > 0 ? none : order.cursorIn(state)
    },
    answerBytes: DEMAND_CHUNK + targetPageSize,
    answered: (state, plan, count, rest) => {
      let bytes = -rest.length
      for (let i = 0, word: number = Answer.words; i < count; i++, word += LOG_WORDS) {
        const page = plan[word]!
        bytes += plan[word + 2]!
        const pushed = plan[word + 3]!
        if (pushed > 0) {
          pages.sentRun(state, page, pushed)
          backgroundPages += pushed
          fill += plan[word + 1]!
          continue
        }
        askedAt = now()
        pages.sent(state, page)
        onDemand++
        if (plan[word + 1]! >= 0) fill++
        if (i < count - 1 && prefault.forward + prefault.backward === 0) continue
        served[0] = page
        pages.goOnBehind(state, served)
      }
      const cursor = plan[Answer.cursor]!
      if (cursor < state.dirty.length) order.goOn(state, cursor)
      charged(bytes)
      main.resume(rest)
    },
    sendRest: () => {
      background = true
      pump()
    },
    unsent: () => states.map((state) => state.dirty),
    askedAt: () => askedAt,
    waitsForLink: () => main.pending() > 0,
    progress: () => {
      const { dirty, total } = pages
      return { total, onDemand, background: backgroundPages, fill, removed, dirty, bytesSent }
    }
  }
}
