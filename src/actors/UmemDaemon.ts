/**
 * The umem daemon: the one owner of page state on the destination. Faults become page requests and page records become
 * installed pages inside the readiness callbacks; the fiber only sees what changes the state machine (end of stream,
 * messages of the guest's side, completion) and carries out its actions.
 *
 *   uffd ──▶ faults ──▶ requests ──▶ link          link ──▶ records ──▶ COPY / ZEROPAGE ──▶ uffd
 *                                  channel ◀─▶ fiber (R T Q E / r t u q)
 *
 * It must never touch guest memory, and it reads the userfaultfd empty before it installs anything: one unread REMOVE
 * makes every COPY fail.
 *
 * Hot path: no Effect per page.
 */
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Pipe from "../protocol/umem/Pipe.ts"
import * as UmemState from "../protocol/umem/UmemState.ts"
import type { BusyPoll } from "../services/BusyPoll.ts"
import type { DaemonCounters } from "../services/DaemonCounters.ts"
import type { Link } from "../services/Link.ts"
import type { PageStates } from "../services/PageStates.ts"
import { Settings } from "../services/Settings.ts"
import type { FaultChannel, RegisteredBlock } from "../services/Userfaultfd.ts"
import type { Channel } from "./Channel.ts"
import * as DaemonPages from "./DaemonPages.ts"
import type { DaemonMessage } from "./Mailboxes.ts"

/** Messages taken from the mailbox at once. */
const BATCH = 64
/** Pages of one TRIGGER_PAGE_FAULT. */
const MAX_TRIGGER_PAGES = 256
/** Milliseconds between two tries of what the kernel put off: no event says when it would succeed. */
const RETRY_MILLIS = 1

export interface Options {
  readonly uffd: FaultChannel
  readonly link: Link
  readonly channel: Channel
  readonly inbox: Queue.Queue<DaemonMessage>
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly targetPageSize: number
  /** Bit 0: the guest's side takes the faults, and the end comes by pages. */
  readonly flags: number
  /** Bytes read from the link before the handover. */
  readonly remainder: Uint8Array
  readonly counters: DaemonCounters
  readonly states?: PageStates | undefined
  /** As of DaemonPages. */
  readonly busyPoll?: BusyPoll | undefined
  readonly now?: (() => number) | undefined
}

/** How the daemon ended: all five end conditions met, or why not. */
export type Ending = { readonly _tag: "Finished" } | { readonly _tag: "Failed"; readonly detail: string }

export const run = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Ending, never, Scope.Scope> {
  const { channel, counters, flags, inbox } = options
  const settings = yield* Settings
  const faultRequests = (flags & 1) !== 0
  let state = UmemState.initial
  let detail = ""
  /** Open while there is something to say to the guest's side. */
  const unsaid = Latch.makeUnsafe(false)

  const wake = () => {
    Queue.offerUnsafe(inbox, { _tag: "Wake" })
  }
  const pages = yield* DaemonPages.make({ ...options, trigger: faultRequests, wake })
  yield* Effect.forkScoped(
    Effect.gen(function*() {
      while (true) {
        yield* pages.retryWanted
        yield* Effect.sleep(RETRY_MILLIS)
        pages.retry()
      }
    })
  )

  /** The last message for the guest's side, QUIT or ERROR, and whether it was taken, once that is known. */
  let farewell: Uint8Array | undefined
  let delivered: boolean | undefined

  /** Carries out what a transition asks for. */
  const apply = (event: UmemState.UmemEvent) => {
    const { actions, state: next } = UmemState.transition(state, event)
    state = next
    for (const action of actions) {
      switch (action) {
        case "QueueEoc":
          pages.queueEoc()
          break
        case "QueueQuit":
          say(Pipe.quit("daemon"))
          break
        case "QueueError":
          counters.setFailure(detail)
          say(Pipe.error())
          break
      }
    }
  }

  const say = (bytes: Uint8Array) => {
    farewell ??= bytes
    unsaid.openUnsafe()
  }

  const handle = (message: DaemonMessage) => {
    switch (message._tag) {
      case "Quit":
        pages.stopServing()
        return apply({ _tag: "Quit" })
      case "ChannelClosed":
        pages.stopServing()
        return apply({ _tag: "ChannelBroken" })
      case "PageFaulted":
      case "PageUnmapped":
        return pages.taken(message.pages)
      case "Ready":
      case "Wake":
        return
    }
  }

  yield* channel.send(Pipe.ready("daemon"))
  // `r` says that the guest's process has let go of the link: only now two readers cannot disturb each other.
  const first = yield* Queue.take(inbox)
  if (first._tag !== "Ready") handle(first)
  pages.begin(options.remainder)

  // What is written to the channel is written here, apart from what reads it: the guest's side answers each TRIGGER, and two
  // who both wait for the other to read wait for ever.
  yield* Effect.forkScoped(
    Effect.gen(function*() {
      while (delivered === undefined) {
        yield* unsaid.await
        unsaid.closeUnsafe()
        while (farewell === undefined && pages.hasTriggers()) {
          if (!(yield* channel.send(Pipe.triggerPageFault(pages.takeTriggers(MAX_TRIGGER_PAGES))))) break
        }
        if (farewell === undefined) continue
        delivered = yield* channel.send(farewell)
        wake()
      }
    }),
    { startImmediately: true }
  )

  let told = false
  while (!UmemState.isFinished(state) && !(UmemState.isFailed(state) && told)) {
    const messages = yield* Queue.takeBetween(inbox, 1, BATCH).pipe(
      // A guest that is gone needs nothing more; a source that does not say EOS then is not waited for.
      quitting(state)
        ? Effect.timeoutOrElse({ duration: settings.goodbyeMillis, orElse: () => Effect.succeed([gone]) })
        : identity
    )
    for (const message of messages) {
      if (message === gone) apply({ _tag: "LinkLost" })
      else handle(message)
    }
    channel.resume()
    if (delivered !== undefined && !told) {
      told = true
      apply({ _tag: delivered ? "ChannelWritten" : "ChannelBroken" })
    }
    const failure = pages.failure()
    if (failure !== undefined && detail === "") {
      detail = failure.detail
      apply({ _tag: failure.lost ? "LinkLost" : "InstallFailed" })
    }
    if (faultRequests && pages.hasTriggers() && UmemState.sendsTriggers(state)) unsaid.openUnsafe()
    if (pages.endOfStream()) {
      if (!pages.complete() && detail === "") {
        detail = `the source ended the page stream with ${counters.missing()} pages missing`
      }
      apply({ _tag: "Eos", complete: pages.complete() })
    }
    if (faultRequests && pages.takenAll()) apply({ _tag: "AllComplete" })
    if (pages.eocWritten()) apply({ _tag: "LinkWritten" })
  }
  return UmemState.isFailed(state) ? { _tag: "Failed", detail } : { _tag: "Finished" }
})

const gone: DaemonMessage = { _tag: "Wake" }
const quitting = (state: UmemState.UmemState) => (state & UmemState.QUIT_RECEIVED) !== 0
