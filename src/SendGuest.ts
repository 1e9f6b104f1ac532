/**
 * The source's side of one migration, in the order that keeps one owner of the guest:
 *
 *   connect ─▶ block list ─▶ (guest still runs) ─▶ pause ─▶ device state ─▶ drained ─▶ LATCH ─▶ `00` ─▶ pages ─▶ EOS / EOC
 *
 * A failure left of the latch lets the guest run on as if nothing had happened. Right of it the guest never runs here
 * again, and its memory is kept until the destination has confirmed that it has every page.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Descriptor } from "userfaultfd-napi"
import { MAILBOX_CAPACITY, type SenderMessage } from "./actors/Mailboxes.ts"
import * as QuickAnswers from "./actors/QuickAnswers.ts"
import * as RequestReceiver from "./actors/RequestReceiver.ts"
import type { Prefault } from "./actors/SourcePages.ts"
import * as SourceSender from "./actors/SourceSender.ts"
import * as Supervisor from "./actors/Supervisor.ts"
import type { GuestError } from "./guests/GuestError.ts"
import {
  GuestFailed,
  type GuestIs,
  InvalidArgument,
  LinkFailed,
  MigrationError,
  type Reason,
  Refused
} from "./MigrationError.ts"
import * as Binding from "./native/Binding.ts"
import { OutgoingMigration } from "./OutgoingMigration.ts"
import { closing, opening } from "./protocol/umem/GuestStream.ts"
import * as Savevm from "./protocol/umem/Savevm.ts"
import { umem } from "./protocol/umem/UmemDialect.ts"
import { rehearseFor } from "./Rehearsal.ts"
import type { Report } from "./Report.ts"
import type { RunningGuest } from "./RunningGuest.ts"
import * as BusyPoll from "./services/BusyPoll.ts"
import { GuestMemory, type SourceBlock } from "./services/GuestMemory.ts"
import { flippingByteAt, type Link } from "./services/Link.ts"
import * as LinkIo from "./services/LinkIo.ts"
import { Links } from "./services/Links.ts"
import * as RateLimit from "./services/RateLimit.ts"
import { Settings } from "./services/Settings.ts"
import { rehearseStream } from "./StreamRehearsal.ts"

export interface Options {
  readonly guest: RunningGuest
  readonly to: string | Descriptor
  readonly background: boolean
  readonly maxBandwidth: number | undefined
  readonly id: string | undefined
  readonly prefault?: Prefault | undefined
  /** Microseconds to wait for the next request without sleeping; `undefined`: the default. */
  readonly busyPollMicros?: number | undefined
}

/** Bytes of a target page. Both ends are configured alike: it is not negotiated. */
const TARGET_PAGE_SIZE = 4096
/** Restoring the device state and the guest's first touch of memory take less at the destination, ms. */
const FIRST_ASK_MILLIS = 10

const guestFailed = (error: GuestError) => new GuestFailed({ phase: error.phase, detail: error.message })

const millisOf = (clock: Clock.Clock) => () => Number(clock.currentTimeNanosUnsafe()) / 1e6

/** Milliseconds with a fraction. */
const millis = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)

interface Switched {
  readonly link: Link
  /** What calls are answered with from the latch on. */
  readonly gone: MigrationError
  readonly blocks: ReadonlyArray<SourceBlock>
  readonly sender: SourceSender.SourceSender
  readonly receiver: RequestReceiver.RequestReceiver
  readonly downtimeMs: number
  readonly lastStepNanos: bigint
  readonly startedAt: number
  readonly bytesBefore: number
  readonly busyPollMicros: number
}

/** What calls are answered with from the latch on. */
const moved = (guest: GuestIs, detail: string) =>
  new MigrationError({ side: "source", guest, reason: new Refused({ detail }) })

/** Up to and including the latch. Fails or is cancelled with the guest running as before. */
const untilLatch = Effect.fnUntraced(function*(
  { busyPollMicros = BusyPoll.DEFAULT_MICROS, guest, prefault, to }: Options,
  outgoing: OutgoingMigration
) {
  const settings = yield* Settings
  const clock = yield* Clock.Clock
  const links = yield* Links
  const memory = yield* GuestMemory
  yield* rehearseFor(links)
  yield* rehearseStream
  const connecting = links.connect(to).pipe(
    Effect.timeoutOrElse({
      duration: settings.connectMillis,
      orElse: () =>
        Effect.fail(
          new LinkFailed({
            code: "TIMEOUT",
            detail: `no connection to ${
              typeof to === "string" ? to : "the peer"
            } within ${settings.connectMillis} ms; check the address, and that a firewall lets it through`
          })
        )
    })
  )
  const connected = yield* Effect.acquireRelease(connecting, (link) => Effect.sync(() => link.close()), {
    interruptible: true
  })
  const link = settings.flipByteAt === undefined ? connected : flippingByteAt(connected, settings.flipByteAt)
  const startedAt = yield* millis
  // START and the one round of the RAM section, which has nothing to send before the switchover.
  outgoing.advance({ _tag: "Connected" })

  const announced = yield* Effect.mapError(guest.vcpu.measure, guestFailed)
  const first = opening(announced)
  yield* LinkIo.writeAll(link, first)
  yield* LinkIo.drained(link, settings.drainMillis)
  guest.timeline.mark("announced")
  // All that can be made before the pause is: what comes after it is downtime.
  const blocks = yield* memory.open(announced)
  const mailbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
  const sender = SourceSender.make({
    dialect: umem,
    link,
    blocks,
    targetPageSize: TARGET_PAGE_SIZE,
    // Whether there is any is the rate limit's to say: it can be changed while the migration runs.
    background: true,
    rate: outgoing.rate,
    ...(prefault === undefined ? {} : { prefault }),
    inbox: mailbox,
    now: millisOf(clock),
    firstAskMillis: FIRST_ASK_MILLIS
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link,
    blocks,
    targetPageSize: TARGET_PAGE_SIZE,
    server: sender,
    sender: mailbox
  })
  // The destination judges the block list while the guest still runs: a refusal costs no downtime. Where bytes count as
  // sent only when they were read, the last ones before the switchover say that it went on reading, so it did not refuse.
  if (!link.unsentIsUnread) yield* Effect.sleep(settings.objectionMillis)
  yield* LinkIo.unobjected(link)

  const gone = moved("destination", `the guest has moved to ${link.peer}: call it there`)
  outgoing.advance({ _tag: "Iterated", result: 1 })
  const pausedAt = yield* millis
  guest.timeline.mark("paused")
  guest.held()
  const { lastStepNanos } = yield* guest.vcpu.pause.pipe(
    Effect.mapError(guestFailed),
    Effect.timeoutOrElse({
      duration: settings.settleMillis,
      orElse: () =>
        Effect.fail(
          new GuestFailed({
            phase: "step",
            detail: `the guest's slice and calls did not settle within ${settings.settleMillis} ms`
          })
        )
    })
  )
  const deviceState = yield* Effect.mapError(guest.vcpu.capture, guestFailed)
  const grown = guest.vcpu.blocks().find(({ idstr, length }) =>
    announced.find((block) => block.idstr === idstr)?.length !== length
  )
  if (grown !== undefined) {
    return yield* new Refused({
      detail: `the guest's memory grew (block ${grown.idstr}) while its size was being announced: migrate it again`
    })
  }
  const last = closing(deviceState)
  yield* LinkIo.writeAll(link, last)
  yield* LinkIo.drained(link, settings.drainMillis)
  yield* LinkIo.unobjected(link)
  return yield* Effect.suspend(() => {
    if (Deferred.isDoneUnsafe(outgoing.cancelled)) return Deferred.await(outgoing.cancelled)
    outgoing.advance({ _tag: "Drained" })
    outgoing.progress = sender.progress
    outgoing.unsent = sender.unsent
    return Effect.map(millis, (now): Switched => ({
      busyPollMicros,
      link,
      gone,
      blocks,
      sender,
      receiver,
      lastStepNanos,
      startedAt,
      downtimeMs: now - pausedAt,
      bytesBefore: first.length + last.length + 1
    }))
  })
})

/** Lets the guest run on after a failure or a cancellation before the latch. */
const runOn = (guest: RunningGuest, outgoing: OutgoingMigration) =>
  Effect.gen(function*() {
    const { status } = outgoing.state
    const actions = outgoing.advance(
      Deferred.isDoneUnsafe(outgoing.cancelled)
        ? { _tag: "Cancel" }
        : { _tag: status === "SETUP" ? "ConnectFailed" : "CompletionFailed" }
    )
    if (actions.includes("RestartGuest") && !guest.pausedByUser) yield* Effect.ignore(guest.vcpu.run)
    guest.opened()
  })

/** Waits for the next request without sleeping, where the addon can. */
const lingerAt = (
  { busyPollMicros, link, receiver, sender }: Switched,
  now: () => number,
  quick: QuickAnswers.QuickAnswers,
  act: (readable: boolean) => void
) => {
  const addon = Binding.load()
  const { descriptor } = link
  if (addon === undefined || descriptor === undefined) return () => {}
  return BusyPoll.lingering({
    busyPoll: BusyPoll.make(addon, busyPollMicros, descriptor, null),
    quick: (nanos) => {
      const came = quick(nanos)
      if (came !== undefined) sender.pump()
      return came
    },
    now,
    since: sender.askedAt,
    active: () => !receiver.ended(),
    wantsWritable: sender.waitsForLink,
    act: () => act(true)
  })
}

/** From the switchover's byte to the destination's confirmation. */
const afterLatch = Effect.fnUntraced(function*(outgoing: OutgoingMigration, switched: Switched) {
  const settings = yield* Settings
  const clock = yield* Clock.Clock
  const { blocks, downtimeMs, lastStepNanos, link, receiver, sender, startedAt } = switched
  const guestIs = (): GuestIs => receiver.heard() ? "destination" : "unknown"
  const failed = (reason: Reason) => new MigrationError({ side: "source", guest: guestIs(), reason })

  return yield* Effect.gen(function*() {
    yield* LinkIo.writeAll(link, Savevm.eof())
    const quick = QuickAnswers.make({ link, receiver, sender, dialect: umem, targetPageSize: TARGET_PAGE_SIZE })
    const act = (readable: boolean) => {
      // What quick finds nothing in may be the end of the stream.
      if (readable && ((quick(0) ?? 0) & BusyPoll.Ready.Dealt) === 0) receiver.poll()
      sender.pump()
    }
    const linger = lingerAt(switched, millisOf(clock), quick, act)
    link.attach((readable) => {
      act(readable)
      linger()
    })
    link.watch(true, false)
    sender.begin(receiver, () => ((quick(0) ?? 0) & BusyPoll.Ready.Dealt) !== 0)
    const supervisor = yield* Supervisor.make<Reason>()
    yield* supervisor.spawn("rate limit", outgoing.rate.ticks(sender.pump))
    yield* supervisor.spawn("first steps", sender.holds)
    const sending = yield* supervisor.spawn("source sender", sender.run)
    yield* Effect.raceFirst(Fiber.join(sending), supervisor.failure)
    // The last bytes must be out of this machine before the socket is closed.
    yield* LinkIo.drained(link, settings.goodbyeMillis).pipe(Effect.ignore)
    const endedAt = yield* millis
    const { background, bytesSent, fill, onDemand, removed, total } = sender.progress()
    const memoryBytes = blocks.reduce((sum, { length }) => sum + length, 0)
    const totalMs = endedAt - startedAt
    const report: Report = {
      role: "source",
      state: "completed",
      dialect: "umem",
      memoryBytes,
      pageSize: TARGET_PAGE_SIZE,
      pages: { total, onDemand, background, fill, removed },
      bytesOnWire: switched.bytesBefore + bytesSent + receiver.bytesReceived(),
      downtimeMs,
      totalMs,
      throughputMiBps: memoryBytes / 2 ** 20 / (totalMs / 1000),
      guestStepNanos: String(lastStepNanos)
    }
    return report
  }).pipe(Effect.mapError(failed))
})

const body = (options: Options, outgoing: OutgoingMigration): Effect.Effect<Report, MigrationError, Scope.Scope> =>
  Effect.gen(function*() {
    const { guest } = options
    const switched = yield* Effect.raceFirst(untilLatch(options, outgoing), Deferred.await(outgoing.cancelled)).pipe(
      Effect.mapError((reason) => new MigrationError({ side: "source", guest: "source", reason })),
      Effect.onExit((exit) => exit._tag === "Failure" ? runOn(guest, outgoing) : Effect.void),
      Effect.tapError((error) => Effect.sync(() => guest.failedBeforeLatch(error)))
    )
    guest.downtimeMs = switched.downtimeMs
    guest.closed("postcopy", switched.gone)
    return yield* afterLatch(outgoing, switched).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          outgoing.advance({ _tag: "Stepped", result: 1 })
          guest.completed()
        })
      ),
      Effect.tapError((error) =>
        Effect.sync(() => {
          outgoing.advance({ _tag: "Stepped", result: -1 })
          guest.lostAfterLatch(error)
        })
      )
    )
  })

/**
 * Sends a guest. The migration runs in a fiber of its own, so that its caller's interruption cannot stop it between the
 * latch and the end: before the latch an interruption cancels and waits until the guest runs on, after it it waits.
 */
export const send = (options: Options): Effect.Effect<Report, MigrationError> =>
  Effect.suspend(() => {
    const { guest, maxBandwidth } = options
    if (maxBandwidth !== undefined && !(Number.isFinite(maxBandwidth) && maxBandwidth >= 0)) {
      const reason = new InvalidArgument({
        detail: `maxBandwidth is ${maxBandwidth}: bytes per second, 0 or more, are expected`
      })
      return Effect.fail(new MigrationError({ side: "source", guest: "source", reason }))
    }
    const outgoing = new OutgoingMigration(RateLimit.make(maxBandwidth), options.id)
    outgoing.rate.setBackground(options.background)
    const refused = guest.beginOutgoing(outgoing)
    if (refused !== undefined) return Effect.fail(refused)
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const fiber = yield* body(options, outgoing).pipe(
          Effect.scoped,
          Effect.ensuring(Effect.sync(() => guest.endOutgoing())),
          Effect.interruptible,
          Effect.forkDetach({ startImmediately: true })
        )
        return yield* restore(Fiber.join(fiber)).pipe(
          Effect.onInterrupt(() => Effect.andThen(Effect.ignore(guest.cancel), Fiber.await(fiber)))
        )
      })
    )
  })
