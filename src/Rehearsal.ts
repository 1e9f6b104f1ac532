/**
 * A migration of a few pages within this process. Every actor runs once before it matters: code that has
 * never run costs milliseconds where a guest waits for microseconds. The daemon rehearses before it says that it is
 * ready, the source while its guest still runs.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Channel from "./actors/Channel.ts"
import * as DestinationHandler from "./actors/DestinationHandler.ts"
import { type DaemonMessage, type HandlerMessage, MAILBOX_CAPACITY, type SenderMessage } from "./actors/Mailboxes.ts"
import * as PipeMessages from "./actors/PipeMessages.ts"
import * as QuickAnswers from "./actors/QuickAnswers.ts"
import * as RequestReceiver from "./actors/RequestReceiver.ts"
import * as SourceSender from "./actors/SourceSender.ts"
import * as UmemDaemon from "./actors/UmemDaemon.ts"
import { rehearseHandover } from "./HandoverRehearsal.ts"
import { DaemonFailed } from "./MigrationError.ts"
import * as Binding from "./native/Binding.ts"
import * as Pipe from "./protocol/umem/Pipe.ts"
import { umem } from "./protocol/umem/UmemDialect.ts"
import * as Stage from "./RehearsalStage.ts"
import * as DaemonCounters from "./services/DaemonCounters.ts"
import * as Links from "./services/Links.ts"
import type { LinksShape } from "./services/Links.ts"
import * as RateLimit from "./services/RateLimit.ts"

/** Completes when every page has moved and both sides have said goodbye. */
export const rehearsal = Effect.fnUntraced(function*(stage: Stage.Stage) {
  const clock = yield* Clock.Clock
  const { block, blocks, busyPoll, daemonEnd, destination, guestEnd, pages, source, touch, uffd } = stage

  const senderInbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
  const sender = SourceSender.make({
    dialect: umem,
    link: source,
    blocks: [block],
    targetPageSize: Stage.PAGE,
    background: false,
    rate: RateLimit.make(undefined),
    inbox: senderInbox,
    now: () => clock.currentTimeMillisUnsafe()
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link: source,
    blocks: [block],
    targetPageSize: Stage.PAGE,
    server: sender,
    sender: senderInbox
  })
  const quick = QuickAnswers.make({ dialect: umem, link: source, receiver, sender, targetPageSize: Stage.PAGE })
  let turn = 0
  source.attach(() => {
    // By either way in turn; an end is for the ordinary one to find.
    if ((turn++ & 1) === 0 || (quick(0) ?? 0) === 0) receiver.poll()
    sender.pump()
  })
  source.watch(true, false)

  const daemonInbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
  const daemon = yield* UmemDaemon.run({
    uffd,
    link: destination,
    channel: Channel.make<DaemonMessage>({
      link: daemonEnd,
      from: "guest",
      mailbox: daemonInbox,
      toMessage: PipeMessages.toDaemon,
      ended: () => ({ _tag: "ChannelClosed" })
    }),
    inbox: daemonInbox,
    blocks,
    targetPageSize: Stage.PAGE,
    flags: 0,
    busyPoll,
    remainder: new Uint8Array(0),
    counters: new DaemonCounters.DaemonCounters(new ArrayBuffer(DaemonCounters.BYTES))
  }).pipe(Effect.forkScoped({ startImmediately: true }))

  const handlerInbox = yield* Queue.bounded<HandlerMessage>(MAILBOX_CAPACITY)
  const channel = Channel.make<HandlerMessage>({
    link: guestEnd,
    from: "daemon",
    mailbox: handlerInbox,
    toMessage: PipeMessages.toHandler,
    ended: (detail) => ({ _tag: "ChannelClosed", detail })
  })
  yield* DestinationHandler.awaitReady(handlerInbox)
  yield* channel.send(Pipe.ready("guest"))
  yield* DestinationHandler.run({
    inbox: handlerInbox,
    channel,
    hostPages: () => new Float64Array(0),
    prefault: () => Effect.void,
    daemonError: () => new DaemonFailed({ detail: "the rehearsal failed" })
  }).pipe(Effect.forkScoped({ startImmediately: true }))

  sender.begin(receiver)
  const sending = yield* Effect.forkScoped(sender.run, { startImmediately: true })
  for (let page = 0; page < pages; page++) yield* touch(page)
  yield* Fiber.join(sending)
  yield* Fiber.join(daemon)
})

const MOST = "1 second"

/** Bounded, and without consequences: a rehearsal that fails changes nothing. */
export const rehearse: Effect.Effect<void> = Stage.doubles.pipe(
  Effect.flatMap(rehearsal),
  Effect.scoped,
  Effect.timeoutOption(MOST),
  Effect.ignoreCause
)

/** The same over the kernel; over doubles where there is no userfaultfd, or no addon. */
export const rehearseWithKernel: Effect.Effect<void> = Effect.suspend(() => {
  const addon = Binding.load()
  if (addon === undefined) return rehearse
  return Stage.kernel(addon).pipe(
    Effect.flatMap(rehearsal),
    Effect.andThen(rehearseHandover(addon)),
    Effect.scoped,
    Effect.timeoutOption(MOST),
    Effect.catchCause(() => rehearse)
  )
})

/** On what the migration itself will run. */
export const rehearseFor = (links: LinksShape): Effect.Effect<void> =>
  links === Links.native ? rehearseWithKernel : rehearse
