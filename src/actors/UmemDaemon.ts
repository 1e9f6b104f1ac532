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

  /** Carries out what a transition asks for. */
  const apply = (event: UmemState.UmemEvent): Effect.Effect<void> =>
    Effect.gen(function*() {
      const { actions, state: next } = UmemState.transition(state, event)
      state = next
      for (const action of actions) {
        switch (action) {
          case "QueueEoc":
            pages.queueEoc()
            break
          case "QueueQuit":
            yield* tell(Pipe.quit("daemon"))
            break
          case "QueueError":
            counters.setFailure(detail)
            yield* tell(Pipe.error())
            break
        }
      }
    })

  const tell = (bytes: Uint8Array) =>
    Effect.flatMap(channel.send(bytes), (sent) => apply({ _tag: sent ? "ChannelWritten" : "ChannelBroken" }))

  const handle = (message: DaemonMessage): Effect.Effect<void> => {
    switch (message._tag) {
      case "Quit":
        pages.stopServing()
        return apply({ _tag: "Quit" })
      case "ChannelClosed":
        pages.stopServing()
        return apply({ _tag: "ChannelBroken" })
      case "PageFaulted":
      case "PageUnmapped":
        pages.taken(message.pages)
        return Effect.void
      case "Ready":
      case "Wake":
        return Effect.void
    }
  }

  yield* channel.send(Pipe.ready("daemon"))
  // `r` says that the guest's process has let go of the link: only now two readers cannot disturb each other.
  yield* Effect.flatMap(Queue.take(inbox), (first) => first._tag === "Ready" ? Effect.void : handle(first))
  pages.begin(options.remainder)

  while (!UmemState.isFinished(state) && !UmemState.isFailed(state)) {
    const messages = yield* Queue.takeBetween(inbox, 1, BATCH).pipe(
      // A guest that is gone needs nothing more; a source that does not say EOS then is not waited for.
      quitting(state)
        ? Effect.timeoutOrElse({ duration: settings.goodbyeMillis, orElse: () => Effect.succeed([gone]) })
        : identity
    )
    for (const message of messages) yield* message === gone ? apply({ _tag: "LinkLost" }) : handle(message)
    channel.resume()
    const failure = pages.failure()
    if (failure !== undefined && detail === "") {
      detail = failure.detail
      yield* apply({ _tag: failure.lost ? "LinkLost" : "InstallFailed" })
    }
    while (faultRequests && pages.hasTriggers() && UmemState.sendsTriggers(state)) {
      if (!(yield* channel.send(Pipe.triggerPageFault(pages.takeTriggers(MAX_TRIGGER_PAGES))))) break
    }
    if (pages.endOfStream()) {
      if (!pages.complete() && detail === "") {
        detail = `the source ended the page stream with ${counters.missing()} pages missing`
      }
      yield* apply({ _tag: "Eos", complete: pages.complete() })
    }
    if (faultRequests && pages.takenAll()) yield* apply({ _tag: "AllComplete" })
    if (pages.eocWritten()) yield* apply({ _tag: "LinkWritten" })
  }
  return UmemState.isFailed(state) ? { _tag: "Failed", detail } : { _tag: "Finished" }
})

const gone: DaemonMessage = { _tag: "Wake" }
const quitting = (state: UmemState.UmemState) => (state & UmemState.QUIT_RECEIVED) !== 0
