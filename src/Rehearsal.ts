/**
 * A migration of a few pages between doubles, in this process. Every actor runs once before it matters: code that has
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
import * as RequestReceiver from "./actors/RequestReceiver.ts"
import * as SourceSender from "./actors/SourceSender.ts"
import * as UmemDaemon from "./actors/UmemDaemon.ts"
import { DaemonFailed } from "./MigrationError.ts"
import * as Pipe from "./protocol/umem/Pipe.ts"
import { umem } from "./protocol/umem/UmemDialect.ts"
import * as DaemonCounters from "./services/DaemonCounters.ts"
import { fromBytes } from "./services/GuestMemory.ts"
import * as LinkMemory from "./services/LinkMemory.ts"
import * as RateLimit from "./services/RateLimit.ts"
import * as UserfaultfdMemory from "./services/UserfaultfdMemory.ts"

const PAGE = 4096
/** Enough that the hot functions have run a few hundred times, few enough to take some ten milliseconds. */
const PAGES = 256

const rehearsal = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const bytes = new Uint8Array(PAGES * PAGE)
  // Every other page is uniform: both kinds of record are sent and installed.
  for (let page = 0; page < PAGES; page += 2) bytes[page * PAGE] = 1
  const block = fromBytes("rehearsal", bytes)
  const memory = yield* UserfaultfdMemory.make({ blocks: [block] })
  const [source, destination] = yield* LinkMemory.pair()
  const [guestEnd, daemonEnd] = yield* LinkMemory.pair()

  const senderInbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
  const sender = SourceSender.make({
    dialect: umem,
    link: source,
    blocks: [block],
    targetPageSize: PAGE,
    background: false,
    rate: RateLimit.make(undefined),
    inbox: senderInbox,
    now: () => clock.currentTimeMillisUnsafe()
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link: source,
    blocks: [block],
    targetPageSize: PAGE,
    server: sender,
    sender: senderInbox
  })
  source.attach(() => {
    receiver.poll()
    sender.pump()
  })
  source.watch(true, false)

  const daemonInbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
  const daemon = yield* UmemDaemon.run({
    uffd: memory.channel,
    link: destination,
    channel: Channel.make<DaemonMessage>({
      link: daemonEnd,
      from: "guest",
      mailbox: daemonInbox,
      toMessage: PipeMessages.toDaemon,
      ended: () => ({ _tag: "ChannelClosed" })
    }),
    inbox: daemonInbox,
    blocks: memory.blocks,
    targetPageSize: PAGE,
    flags: 0,
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
  for (let page = 0; page < PAGES; page++) yield* memory.read("rehearsal", page)
  yield* Fiber.join(sending)
  yield* Fiber.join(daemon)
})

/** Bounded, and without consequences: a rehearsal that fails changes nothing. */
export const rehearse: Effect.Effect<void> = rehearsal.pipe(
  Effect.scoped,
  Effect.timeoutOption("1 second"),
  Effect.ignoreCause
)
