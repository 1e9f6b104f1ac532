/**
 * Restores an image into a waiting QEMU by post-copy: the device state first, then the pages, those that the guest
 * touches before all others. The guest runs as soon as its devices are loaded.
 *
 *   image ─▶ rehearsal ─▶ [QMP] ─▶ connect ─▶ opening ─▶ pages ⇄ requests ─▶ end ─▶ SHUT 0
 *                                     └─▶ bitmaps, RESUME ─▶ missing pages ─▶ …              resumed
 *
 * The stream is ended only when no page is missing: whatever fails before leaves the guest waiting for its memory, not
 * running on zeros, and `resume` goes on from what the destination has.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { MAILBOX_CAPACITY, type PageServer, type SenderMessage } from "../actors/Mailboxes.ts"
import type { PageName } from "../actors/PageOrder.ts"
import * as RequestReceiver from "../actors/RequestReceiver.ts"
import * as SourceSender from "../actors/SourceSender.ts"
import * as Supervisor from "../actors/Supervisor.ts"
import { type LinkFailed, type Reason, Refused } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import { Ping, TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import * as QemuDialect from "../protocol/qemu/QemuDialect.ts"
import * as Stream from "../protocol/qemu/Stream.ts"
import * as BusyPoll from "../services/BusyPoll.ts"
import type { Link } from "../services/Link.ts"
import * as LinkIo from "../services/LinkIo.ts"
import { Links } from "../services/Links.ts"
import * as RateLimit from "../services/RateLimit.ts"
import * as Destination from "./Destination.ts"
import * as Image from "./Image.ts"
import * as Monitor from "./Monitor.ts"
import { type QemuReason, QmpFailed } from "./QemuError.ts"
import { rehearse } from "./QemuRehearsal.ts"
import * as QmpClient from "./QmpClient.ts"
import * as RecoveryHandshake from "./RecoveryHandshake.ts"
import * as StdioLink from "./StdioLink.ts"
import { TouchRecorder } from "./TouchOrder.ts"

export interface Options {
  readonly image: string
  /** `tcp:HOST:PORT`, `unix:PATH`, `fd:N`, or `-`: stdin and stdout. */
  readonly to: string
  /** The destination's monitor: sets its capabilities and makes it listen. */
  readonly qmp?: string
  /** Send pages nobody asked for. */
  readonly background: boolean
  /** Bytes a second of pages nobody asked for; `undefined` = unlimited. */
  readonly maxBandwidth: number | undefined
  /** Goes on with a destination whose source is gone. */
  readonly resume: boolean
  /** Requested pages take a connection of their own; the destination must know. */
  readonly preempt: boolean
  /** Pages pushed before all others. */
  readonly first: ReadonlyArray<PageName>
  /** Notes what is touched first: memory for every page that is. */
  readonly record: boolean
}

export interface RestoreReport {
  readonly role: "source"
  readonly state: "completed"
  readonly dialect: "qemu"
  readonly resumed: boolean
  readonly memoryBytes: number
  readonly pageSize: number
  readonly pages: {
    readonly total: number
    readonly onDemand: number
    readonly background: number
    readonly fill: number
    /** Pages that the destination had already. */
    readonly had: number
  }
  readonly bytesOnWire: number
  /** CLOCK_MONOTONIC of the first byte, nanoseconds as a decimal string. */
  readonly startedNanos: string
  /** Milliseconds from the first byte until the destination had loaded the devices: its guest runs. */
  readonly loadedMs: number | null
  readonly totalMs: number
  readonly throughputMiBps: number
}

export interface Restoring {
  /** Completes when the destination has loaded the devices. Never, where the guest runs already. */
  readonly loaded: Effect.Effect<void>
  /** Sends what nobody asked for, too. */
  readonly sendRest: Effect.Effect<void>
  readonly progress: () => { readonly total: number; readonly sent: number }
  /** What was touched first, in order; empty unless it is recorded. */
  readonly touched: TouchRecorder
  /** Completes when the destination has confirmed that it has every page. */
  readonly finished: Effect.Effect<RestoreReport, QemuReason>
}

/**
 * How long the background waits for the first request after the destination's first PONG. Milliseconds: its devices ask
 * while they are loaded, and whatever was sent before would have to be placed first.
 */
const FIRST_ASK_MILLIS = 10
/**
 * How long the guest's first steps have the link to themselves after that PONG. Milliseconds: its devices are loaded and it
 * has ticked within ten; a machine that goes on asking is helped most by all of its memory being there soon.
 */
const FIRST_STEPS_MILLIS = 20
/** How long the last bytes may take to be read. Milliseconds. */
const GOODBYE_MILLIS = 5_000

/** `-` is a link that is there; anything else is connected to. */
const connect = (to: string): Effect.Effect<Link, QemuReason, Scope.Scope> =>
  to === "-" ? StdioLink.open : Effect.gen(function*() {
    const links = yield* Links
    return yield* Effect.acquireRelease(links.connect(to), (link) => Effect.sync(() => link.close()))
  })

interface Opened {
  readonly link: Link
  readonly urgent: Link | undefined
  readonly recovered: RecoveryHandshake.Recovered | undefined
  readonly startedAt: number
  readonly startedNanos: string
  readonly bytes: number
}

/** The moment of the first byte, on both clocks. */
const now = () => ({ startedAt: performance.now(), startedNanos: String(process.hrtime.bigint()) })

/** Everything up to the first page. */
const opened = Effect.fnUntraced(function*(options: Options, snapshot: Stream.Snapshot) {
  const first = options.resume ? Stream.resuming() : Stream.opening(snapshot)
  if (options.resume) {
    return yield* Effect.gen(function*() {
      const link = yield* connect(options.to)
      const recovered = yield* RecoveryHandshake.perform(link, snapshot.blocks)
      const started = now()
      yield* LinkIo.writeAll(link, first)
      return { link, urgent: undefined, recovered, ...started, bytes: recovered.bytes + first.length } satisfies Opened
    }).pipe(Effect.uninterruptible)
  }
  const link = yield* connect(options.to)
  // The destination tells its channels apart by their order, and begins once both are there.
  const urgent = options.preempt ? yield* connect(options.to) : undefined
  const started = now()
  yield* LinkIo.writeAll(link, first)
  return { link, urgent, recovered: undefined, ...started, bytes: first.length } satisfies Opened
})

/** Waits for the guest's next request without sleeping, where the addon can: it comes sooner than a wake-up. */
const lingerAt = (
  { descriptor }: Link,
  receiver: RequestReceiver.RequestReceiver,
  sender: SourceSender.SourceSender,
  act: (readable: boolean) => void
): () => void => {
  const addon = Binding.load()
  if (addon === undefined || descriptor === undefined) return () => {}
  const busyPoll = BusyPoll.make(addon, BusyPoll.DEFAULT_MICROS, descriptor, null)
  if (busyPoll === undefined) return () => {}
  return BusyPoll.lingering({
    busyPoll,
    now: () => performance.now(),
    since: sender.askedAt,
    active: () => !receiver.ended(),
    wantsWritable: sender.waitsForLink,
    act: () => act(true)
  })
}

const asked = (options: Options, blocks: ReadonlyArray<QemuBlock>) => {
  if (options.preempt && options.to === "-") {
    return new Refused({
      detail: "a second channel needs a URI to connect to: it cannot go over stdin and stdout, use tcp: or unix:"
    })
  }
  if (options.preempt && options.resume) {
    return new Refused({ detail: "a recovery with a second channel is not supported: resume without --preempt" })
  }
  if (blocks.length === 0) return new Refused({ detail: "the image has no memory; save the machine again" })
  return undefined
}

/** Begins a restore; it goes on until it has finished or the scope ends. */
export const begin = (options: Options): Effect.Effect<Restoring, QemuReason, Scope.Scope> =>
  Effect.gen(function*() {
    const image = yield* Image.open(options.image)
    const refused = asked(options, image.snapshot.blocks)
    if (refused !== undefined) return yield* refused
    const qmp = options.qmp === undefined ? undefined : yield* QmpClient.connect(options.qmp)
    // The mapping, and every function on the way, before anybody waits.
    const probe = yield* Image.memory(image, image.snapshot.blocks)
    yield* rehearse(probe[0]!)
    const { manifest } = image
    const blocks = qmp === undefined
      ? image.snapshot.blocks
      : yield* options.resume
        ? Destination.recover(qmp, manifest, options.to)
        : Destination.prepare(qmp, manifest, { uri: options.to, preempt: options.preempt })
    const source = probe.map((block, i) => ({ ...block, hostPageSize: blocks[i]!.pageSize }))
    const { bytes, link, recovered, startedAt, startedNanos, urgent } = yield* opened(options, {
      ...image.snapshot,
      blocks
    })

    const loaded = Deferred.makeUnsafe<void>()
    let loadedMs: number | null = null
    const dialect = QemuDialect.make({
      blocks,
      onPong: (value) => {
        if (value !== Ping.Loaded || loadedMs !== null) return
        loadedMs = performance.now() - startedAt
        Deferred.doneUnsafe(loaded, Effect.void)
      },
      ...(recovered !== undefined && { remainder: recovered.remainder })
    })
    const touched = new TouchRecorder()
    const inbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
    const rate = RateLimit.make(options.maxBandwidth)
    const sender = SourceSender.make({
      dialect,
      link,
      blocks: source,
      targetPageSize: TARGET_PAGE_SIZE,
      background: options.background,
      rate,
      inbox,
      now: () => performance.now(),
      first: options.first,
      firstAskMillis: FIRST_ASK_MILLIS,
      firstStepsMillis: FIRST_STEPS_MILLIS,
      ...(recovered !== undefined && { received: recovered.received }),
      ...(urgent !== undefined && { urgent: { link: urgent, encoder: QemuDialect.preemptEncoder() } })
    })
    const server: PageServer = {
      serve: (request) => {
        if (options.record) touched.note(request)
        sender.serve(request)
      }
    }
    const receiver = RequestReceiver.make({
      dialect,
      link,
      blocks,
      targetPageSize: TARGET_PAGE_SIZE,
      server,
      sender: inbox
    })
    const act = (readable: boolean) => {
      if (readable) receiver.poll()
      sender.pump()
    }
    const linger = lingerAt(link, receiver, sender, act)
    link.attach((readable) => {
      act(readable)
      linger()
    })
    urgent?.attach(() => sender.pump())
    link.watch(true, false)
    sender.begin(receiver)
    const had = sender.progress().total - sender.progress().dirty - sender.progress().onDemand -
      sender.progress().background

    const supervisor = yield* Supervisor.make<Reason>()
    yield* supervisor.spawn("rate limit", rate.ticks(sender.pump))
    yield* supervisor.spawn("first steps", sender.holds)
    const sending = yield* supervisor.spawn("source sender", sender.run)

    const finished = Effect.gen(function*() {
      yield* Effect.raceFirst(Fiber.join(sending), supervisor.failure).pipe(
        Effect.mapError((reason) => reason as QemuReason),
        Effect.catchTag("LinkFailed", (broken) => qmp === undefined ? Effect.fail(broken) : explained(qmp, broken))
      )
      yield* Effect.ignore(LinkIo.drained(link, GOODBYE_MILLIS))
      if (qmp !== undefined) yield* completed(qmp)
      const totalMs = performance.now() - startedAt
      const { background, bytesSent, fill, onDemand, total } = sender.progress()
      const memoryBytes = blocks.reduce((sum, { length }) => sum + length, 0)
      return {
        role: "source",
        state: "completed",
        dialect: "qemu",
        resumed: options.resume,
        memoryBytes,
        pageSize: TARGET_PAGE_SIZE,
        pages: { total, onDemand, background, fill, had },
        bytesOnWire: bytes + bytesSent + receiver.bytesReceived(),
        startedNanos,
        loadedMs,
        totalMs,
        throughputMiBps: memoryBytes / 2 ** 20 / (totalMs / 1000)
      } as const satisfies RestoreReport
    })

    return {
      loaded: Deferred.await(loaded),
      sendRest: Effect.sync(sender.sendRest),
      progress: () => {
        const { dirty, total } = sender.progress()
        return { total, sent: total - dirty }
      },
      touched,
      finished
    }
  })

/** A connection that ended early: the destination's monitor, where it still answers, knows what became of the guest. */
const explained = (qmp: QmpClient.QmpClient, broken: LinkFailed): Effect.Effect<never, QemuReason> =>
  Effect.gen(function*() {
    const { error, status } = yield* Monitor.migration(qmp).pipe(
      Effect.orElseSucceed(() => ({ status: "gone", error: "" }))
    )
    if (status === "gone") return yield* broken
    return yield* new QmpFailed({
      command: "migrate-incoming",
      detail: `${broken.detail}; the destination's migration is ${status}${error === "" ? "" : ` (${error})`}`
    })
  })

const completed = (qmp: QmpClient.QmpClient): Effect.Effect<void, QemuReason> =>
  Effect.flatMap(Monitor.ended(qmp), ({ error, status }) =>
    status === "completed" ? Effect.void : Effect.fail(
      new QmpFailed({ command: "migrate-incoming", detail: `the destination's migration ${status} (${error})` })
    ))
