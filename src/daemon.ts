/**
 * The umem daemon's process. It shares nothing with the guest but two sockets, a userfaultfd, counters and page states, has
 * a session of its own, and ends by QUIT, by the end of its channel, or when every page is there; never by the terminal.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as nodeModule from "node:module"
import * as Channel from "./actors/Channel.ts"
import { type DaemonMessage, MAILBOX_CAPACITY } from "./actors/Mailboxes.ts"
import * as PipeMessages from "./actors/PipeMessages.ts"
import * as UmemDaemon from "./actors/UmemDaemon.ts"
import * as Binding from "./native/Binding.ts"
import { rehearseWithKernel } from "./Rehearsal.ts"
import * as BusyPoll from "./services/BusyPoll.ts"
import * as DaemonCounters from "./services/DaemonCounters.ts"
import * as Handover from "./services/Handover.ts"
import * as LinkIo from "./services/LinkIo.ts"
import * as NativeLink from "./services/NativeLink.ts"
import { PageStates } from "./services/PageStates.ts"
import { Settings } from "./services/Settings.ts"
import * as Userfaultfd from "./services/Userfaultfd.ts"

/** Descriptors this process is started with. */
const CHANNEL_FD = 3
const HANDOVER_FD = 4

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})

const main = Effect.gen(function*() {
  const addon = Binding.require()
  const { goodbyeMillis } = yield* Settings
  const handoverSocket = addon.Descriptor.adopt(HANDOVER_FD)
  const channelSocket = addon.Descriptor.adopt(CHANNEL_FD)
  yield* rehearseWithKernel
  // Now, with all that the rehearsal has compiled, and not at the end, where somebody waits for this process to be gone.
  nodeModule.flushCompileCache?.()
  Handover.sendReady(addon, handoverSocket)
  const received = yield* Handover.receive(addon, handoverSocket)
  if (received === undefined) return 0
  handoverSocket.close()
  const { remainder, table } = received
  const counters = addon.Region.map(received.counters, 0, DaemonCounters.BYTES)
  received.counters.close()
  const pages = PageStates.pagesOf(table.blocks, table.targetPageSize)
  const states = addon.Region.map(received.states, 0, Math.ceil(pages / addon.pageSize) * addon.pageSize)
  received.states.close()

  const inbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
  const channel = Channel.make<DaemonMessage>({
    link: NativeLink.fromDescriptor(addon, channelSocket, "the guest"),
    from: "guest",
    mailbox: inbox,
    toMessage: PipeMessages.toDaemon,
    ended: () => ({ _tag: "ChannelClosed" })
  })
  const link = NativeLink.fromDescriptor(addon, received.link, "the source")
  const uffd = Userfaultfd.serve(addon, received.uffd, table.blocks, received.memfds)
  const ending = yield* UmemDaemon.run({
    uffd,
    link,
    channel,
    inbox,
    blocks: table.blocks,
    targetPageSize: table.targetPageSize,
    flags: table.flags,
    busyPoll: BusyPoll.make(addon, table.busyPollMicros, received.uffd, received.link),
    now: () => addon.monotonicNanos() / 1e6,
    remainder,
    counters: new DaemonCounters.DaemonCounters(counters.buffer()),
    states: new PageStates(pages, states.buffer())
  })
  // The source must hear the end of connection: it keeps the guest's memory until then.
  yield* Effect.ignore(LinkIo.drained(link, goodbyeMillis))
  link.close()
  channel.close()
  uffd.close()
  return ending._tag === "Finished" ? 0 : 1
})

Effect.runPromise(Effect.scoped(main)).then(
  (code) => Binding.require().exitNow(code),
  (error: unknown) => {
    process.stderr.write(`postcopy: the umem daemon failed: ${error instanceof Error ? error.stack : String(error)}\n`)
    process.exit(1)
  }
)
