/**
 * The destination's side of one migration:
 *
 *   load guest ─▶ start daemon ─▶ listen ─▶ savevm up to its EOF ─▶ hand over ─▶ `R` ─▶ close own link ─▶ `r` ─▶ run
 *
 * Memory is registered when the block list arrives, before anything may touch it. A failure left of the EOF byte leaves
 * the guest at the source; right of it the guest is here, and is parked, never fed zeros, when its pages cannot come.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Channel from "./actors/Channel.ts"
import * as DestinationHandler from "./actors/DestinationHandler.ts"
import { type HandlerMessage, MAILBOX_CAPACITY } from "./actors/Mailboxes.ts"
import * as PipeMessages from "./actors/PipeMessages.ts"
import type { GuestError } from "./guests/GuestError.ts"
import * as HostPageNumbers from "./HostPageNumbers.ts"
import { type LoadedState, loadState } from "./LoadState.ts"
import {
  DaemonFailed,
  GuestFailed,
  type GuestIs,
  InvalidArgument,
  LinkFailed,
  MigrationError,
  type Reason,
  Refused
} from "./MigrationError.ts"
import * as Pipe from "./protocol/umem/Pipe.ts"
import { rehearseFor } from "./Rehearsal.ts"
import type { Report } from "./Report.ts"
import { RunningGuest } from "./RunningGuest.ts"
import { DEFAULT_MICROS } from "./services/BusyPoll.ts"
import { DaemonProcess, type UmemDaemonHandle } from "./services/DaemonProcess.ts"
import * as Endpoint from "./services/Endpoint.ts"
import { GuestThreads } from "./services/GuestThreads.ts"
import type { Link } from "./services/Link.ts"
import { Links } from "./services/Links.ts"
import { Prefault } from "./services/Prefault.ts"
import { Settings } from "./services/Settings.ts"
import { Userfaultfd } from "./services/Userfaultfd.ts"
import { rehearseStream } from "./StreamRehearsal.ts"
import * as Traces from "./telemetry/Traces.ts"

export interface Options {
  readonly guest: URL | string
  readonly from: string
  readonly memoryMiB: number | undefined
  readonly flags: number
  readonly id: string | undefined
  /** Microseconds that the daemon waits for the next event without sleeping; `undefined`: the default. */
  readonly busyPollMicros: number | undefined
}

export interface Incoming {
  readonly uri: string
  readonly guest: RunningGuest
  readonly running: Effect.Effect<void, MigrationError>
  readonly report: Effect.Effect<Report, MigrationError>
  readonly reportNow: Effect.Effect<Report>
}

/** Bytes of a target page. Both ends are configured alike: it is not negotiated. */
const TARGET_PAGE_SIZE = 4096

const millis = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)

const failedHere = (guest: GuestIs) => (reason: Reason) => new MigrationError({ side: "destination", guest, reason })

const guestFailed = (error: GuestError) => new GuestFailed({ phase: error.phase, detail: error.message })

/** When things happened, milliseconds of the clock; what the report is made of. */
interface Times {
  firstByte: number | undefined
  resumed: number | undefined
  completed: number | undefined
  firstStepNanos: bigint | undefined
  bytesBefore: number
  missingAtFirstAnswer: number | undefined
}

/** The guest's side of the daemon channel, made before the switchover: what comes after it is downtime. */
interface DaemonSide {
  readonly inbox: Queue.Queue<HandlerMessage>
  readonly channel: Channel.Channel
}

/** Hands the link over and starts the guest. `loaded` was read up to and including the EOF byte. */
const takeOver = Effect.fnUntraced(function*(
  options: Options,
  guest: RunningGuest,
  daemon: UmemDaemonHandle,
  { channel, inbox }: DaemonSide,
  link: Link,
  loaded: LoadedState,
  times: Times,
  running: Deferred.Deferred<void, MigrationError>
) {
  const settings = yield* Settings
  const { registration } = loaded
  guest.timeline.mark("handover")
  const { vcpu } = guest
  const parked = failedHere("parked")

  yield* daemon.handover({
    registration,
    link,
    remainder: loaded.remainder,
    targetPageSize: TARGET_PAGE_SIZE,
    flags: options.flags,
    busyPollMicros: options.busyPollMicros ?? DEFAULT_MICROS
  }).pipe(Effect.mapError(parked))
  yield* DestinationHandler.awaitReady(inbox).pipe(
    Effect.timeoutOrElse({
      duration: settings.handshakeMillis,
      orElse: () =>
        Effect.fail(new DaemonFailed({ detail: `the umem daemon was not ready within ${settings.handshakeMillis} ms` }))
    }),
    Effect.mapError(parked)
  )
  // From here the daemon alone has the link: its end must be seen by the source when the daemon is gone.
  link.release()
  yield* channel.send(Pipe.ready("guest"))

  vcpu.discards((idstr, offset, length) => {
    // An idempotent notice: the kernel's own event has told the daemon already, so a full mailbox may drop it.
    Queue.offerUnsafe(inbox, { _tag: "Discarded", idstr, offset, length })
  })
  // At once: the rest of this side is made while the guest comes up.
  const starting = yield* Effect.gen(function*() {
    guest.mayRun = true
    yield* vcpu.restore(loaded.deviceState).pipe(Effect.mapError((error) => {
      guest.mayRun = false
      return failedHere("none")(guestFailed(error))
    }))
    times.resumed = yield* millis
    guest.downtimeMs = times.firstByte === undefined ? undefined : times.resumed - times.firstByte
    guest.opened()
    Deferred.doneUnsafe(running, Exit.void)
  }).pipe(Effect.forkScoped({ startImmediately: true }))

  const pages = HostPageNumbers.of(registration.blocks)
  const touch = yield* (yield* Prefault).make(vcpu.blocks())
  const handler = yield* DestinationHandler.run({
    inbox,
    channel,
    hostPages: pages.pages,
    prefault: (list) => touch(pages.ranges(list)),
    daemonError: () =>
      new LinkFailed({ code: "EIO", detail: daemon.counters.failure() || "the umem daemon reported an error" })
  }).pipe(Effect.forkScoped({ startImmediately: true }))
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      Effect.sync(() => Queue.offerUnsafe(inbox, { _tag: "QuitRequested" })),
      Effect.timeoutOption(Fiber.await(handler), settings.goodbyeMillis)
    )
  )

  const ending = Fiber.join(handler).pipe(
    Effect.mapError((reason) => failedHere(daemon.counters.complete() ? "destination" : "parked")(reason))
  )
  // Whichever side fails first is the failure; the guest may be done with its first steps long before the pages are.
  yield* Effect.all([Fiber.join(starting), ending], { concurrency: "unbounded", discard: true })
  times.completed = yield* millis
  if (!daemon.counters.complete()) {
    return yield* parked(new DaemonFailed({ detail: "the umem daemon ended with pages missing" }))
  }
  yield* Effect.timeoutOption(daemon.exited, settings.goodbyeMillis)
})

/** A daemon that is gone before the switchover is found out before it: the guest stays where it is. */
const goneEarly = (daemon: UmemDaemonHandle) =>
  Effect.flatMap(
    daemon.exited,
    (how) => Effect.fail(new DaemonFailed({ detail: `the umem daemon ended before the switchover: ${how}` }))
  )

/** One incoming migration from the accepted connection to its end. */
const incoming = Effect.fnUntraced(function*(
  options: Options,
  guest: RunningGuest,
  daemon: UmemDaemonHandle,
  link: Link,
  times: Times,
  running: Deferred.Deferred<void, MigrationError>
) {
  const inbox = yield* Queue.bounded<HandlerMessage>(MAILBOX_CAPACITY)
  const channel = Channel.make<HandlerMessage>({
    link: daemon.channel,
    from: "daemon",
    mailbox: inbox,
    toMessage: PipeMessages.toHandler,
    ended: (detail) => ({ _tag: "ChannelClosed", detail })
  })
  const loaded = yield* loadState({
    link,
    guest,
    targetPageSize: TARGET_PAGE_SIZE,
    onFirstByte: Effect.map(millis, (now) => {
      times.firstByte = now
      guest.moving("incoming")
    })
  }).pipe(
    Effect.raceFirst(goneEarly(daemon)),
    Effect.onError(() => Effect.sync(() => link.close())),
    Effect.mapError(failedHere("source"))
  )
  times.bytesBefore = loaded.bytesRead
  daemon.counters.set("total", loaded.totalPages)
  yield* takeOver(options, guest, daemon, { inbox, channel }, link, loaded, times, running).pipe(
    Effect.onExit((exit) =>
      Effect.sync(() => {
        // What counts is what is installed: with one page on its way the userfaultfd must stay open.
        loaded.registration.release(Exit.isSuccess(exit) || daemon.counters.complete())
      })
    )
  )
})

const reportOf = (
  state: Report["state"],
  guest: RunningGuest,
  daemon: UmemDaemonHandle,
  times: Times,
  now: number
): Report => {
  const { counters } = daemon
  const memoryBytes = guest.vcpu.blocks().reduce((sum, { length }) => sum + length, 0)
  const totalMs = times.firstByte === undefined ? 0 : (times.completed ?? now) - times.firstByte
  return {
    role: "destination",
    state,
    dialect: "umem",
    memoryBytes,
    pageSize: TARGET_PAGE_SIZE,
    pages: counters.pages(),
    bytesOnWire: times.bytesBefore + counters.get("bytesReceived") + counters.get("bytesSent"),
    downtimeMs: times.firstByte === undefined || times.resumed === undefined ? 0 : times.resumed - times.firstByte,
    totalMs,
    throughputMiBps: totalMs > 0 ? memoryBytes / 2 ** 20 / (totalMs / 1000) : 0,
    faults: counters.faults(),
    ...(times.firstStepNanos === undefined ? {} : { guestStepNanos: String(times.firstStepNanos) }),
    ...(times.missingAtFirstAnswer === undefined ? {} : { missingAtFirstAnswer: times.missingAtFirstAnswer })
  }
}

/** Loads the guest, starts the daemon, listens, and serves one connection in the background of the scope. */
export const listen = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<Incoming, MigrationError, Scope.Scope> {
  const notHere = failedHere("none")
  const clock = yield* Clock.Clock
  const settings = yield* Settings
  const links = yield* Links
  yield* Effect.fromResult(Endpoint.parse(options.from)).pipe(Effect.mapError(notHere))
  if (options.flags !== 0 && options.flags !== 1) {
    const detail = `postcopy flags ${options.flags} are not supported: 0, or 1 for fault requests`
    return yield* notHere(new InvalidArgument({ detail }))
  }
  yield* (yield* Userfaultfd).available.pipe(Effect.mapError(notHere))
  const vcpu = yield* (yield* GuestThreads).load(options.guest, { memoryMiB: options.memoryMiB }).pipe(
    Effect.mapError((error) => notHere(guestFailed(error)))
  )
  const guest = new RunningGuest(vcpu, "destination", () => Number(clock.currentTimeNanosUnsafe()) / 1e6)
  // What this process does at the switchover it has done once before, while the daemon starts on another core.
  yield* vcpu.measure.pipe(Effect.ignore, Effect.forkScoped)
  const rehearsing = Effect.andThen(rehearseFor(links), rehearseStream)
  const [daemon] = yield* Effect.all([(yield* DaemonProcess).start, rehearsing], { concurrency: 2 }).pipe(
    Effect.mapError(notHere)
  )
  const listener = yield* links.listen(options.from).pipe(Effect.mapError(notHere))

  const times: Times = {
    firstByte: undefined,
    resumed: undefined,
    completed: undefined,
    firstStepNanos: undefined,
    bytesBefore: 0,
    missingAtFirstAnswer: undefined
  }
  guest.counters = daemon.counters
  guest.states = daemon.states
  if (options.id !== undefined) guest.id = options.id
  guest.stalled = () =>
    daemon.counters.get("outstanding") > 0 &&
    clock.currentTimeMillisUnsafe() - daemon.counters.get("lastHeardMillis") > settings.stalledMillis
  guest.onAnswer = () => {
    times.missingAtFirstAnswer ??= daemon.counters.missing()
    guest.timeline.mark("answered")
  }
  const running = Deferred.makeUnsafe<void, MigrationError>()
  const outcome = Deferred.makeUnsafe<void, MigrationError>()
  const reportNow = Effect.map(
    millis,
    (now) => reportOf(times.completed !== undefined ? "completed" : "failed", guest, daemon, times, now)
  )

  const fail = (error: MigrationError) => {
    if (error.guest === "destination") guest.failedBeforeLatch(error)
    else guest.closed("failed", error)
    Deferred.doneUnsafe(running, Exit.fail(error))
    Deferred.doneUnsafe(outcome, Exit.fail(error))
    if (error.guest === "parked" || error.guest === "none") Deferred.doneUnsafe(guest.lost, Exit.fail(error))
  }
  yield* Effect.gen(function*() {
    const link = yield* Effect.raceFirst(listener.accept, goneEarly(daemon)).pipe(
      Effect.mapError(failedHere("source"))
    )
    yield* listener.close
    yield* incoming(options, guest, daemon, link, times, running).pipe(
      Traces.migration({ id: guest.id, role: "destination", peer: link.peer, timeline: guest.timeline }),
      Effect.ensuring(Effect.sync(() => link.close()))
    )
    guest.completed()
    Deferred.doneUnsafe(outcome, Exit.void)
  }).pipe(
    Effect.scoped,
    Effect.onExit((exit) => {
      if (Exit.isSuccess(exit)) return Effect.void
      const failure = exit.cause.reasons.find((reason) => reason._tag === "Fail")
      return Effect.sync(() =>
        fail(
          failure?.error ?? failedHere(times.resumed === undefined ? "none" : "parked")(
            new Refused({ detail: "the incoming migration was ended here: receive again to take another" })
          )
        )
      )
    }),
    Effect.forkScoped({ startImmediately: true })
  )
  const firstStep = yield* vcpu.firstStepNanos.pipe(
    Effect.map((nanos) => {
      times.firstStepNanos = nanos
    }),
    Effect.ignore,
    Effect.forkScoped
  )
  // A small guest is here whole before it has done anything. One that does nothing by itself is not waited for long.
  const stepped = Effect.timeoutOption(Fiber.await(firstStep), settings.firstStepMillis)
  yield* vcpu.crashed.pipe(
    Effect.catch((error) => Effect.sync(() => fail(failedHere("none")(guestFailed(error))))),
    Effect.forkScoped
  )
  return {
    uri: listener.uri,
    guest,
    running: Deferred.await(running),
    report: Deferred.await(outcome).pipe(Effect.andThen(stepped), Effect.andThen(reportNow)),
    reportNow
  }
})
