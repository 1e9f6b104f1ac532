/**
 * The guest's side of the daemon channel: the READY handshake, faults taken on the daemon's behalf, notices of memory
 * given back, and QUIT both ways. It never touches guest memory itself; a prefault runs on a thread of its own. An ERROR,
 * or the end of the channel before QUIT, means that pages will not come: that is its failure, and the guest stays parked.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import { DaemonFailed, type Reason } from "../MigrationError.ts"
import * as Pipe from "../protocol/umem/Pipe.ts"
import * as PisState from "../protocol/umem/PisState.ts"
import type { Channel } from "./Channel.ts"
import type { HandlerMessage } from "./Mailboxes.ts"

/** Messages taken from the mailbox at once. */
const BATCH = 16

export interface Options {
  readonly inbox: Queue.Dequeue<HandlerMessage>
  readonly channel: Channel
  /** Global host page numbers of a range of a block, in order. */
  readonly hostPages: (idstr: string, offset: number, length: number) => Float64Array
  /** Touches one byte of each page, on a thread of its own. */
  readonly prefault: (pages: Float64Array) => Effect.Effect<void>
  /** Why the daemon gave up, as far as it could say. */
  readonly daemonError: () => Reason
}

/** Waits for the daemon's READY. */
export const awaitReady = (inbox: Queue.Dequeue<HandlerMessage>): Effect.Effect<void, Reason> =>
  Effect.flatMap(Queue.take(inbox), (message) => {
    switch (message._tag) {
      case "Ready":
        return Effect.void
      case "ChannelClosed":
        return Effect.fail(
          new DaemonFailed({ detail: `the umem daemon was lost before it was ready: ${message.detail}` })
        )
      default:
        return Effect.fail(new DaemonFailed({ detail: `the umem daemon sent ${message._tag} before READY` }))
    }
  })

/**
 * Completes after QUIT both ways. Fails when the daemon reports an error or is gone before that; whether pages are
 * missing then is for the caller to see.
 */
export const run = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<void, Reason> {
  const { channel, daemonError, hostPages, inbox, prefault } = options
  let state = PisState.initial
  /** Pages to be touched, and whether the daemon is to hear of it: each of the guest's at most once, as it is installed. */
  const triggered: Array<{ readonly pages: Float64Array; tell: boolean }> = []
  const untouched = Latch.makeUnsafe(false)

  // A touch may wait as long as the guest itself, and for ever when the daemon is gone: whoever waits for it must not be
  // the one who is told of that.
  const touching = Effect.gen(function*() {
    while (true) {
      yield* untouched.await
      untouched.closeUnsafe()
      for (let next = triggered.shift(); next !== undefined; next = triggered.shift()) {
        yield* prefault(next.pages)
        if (next.tell && !PisState.isQuitQueued(state)) yield* channel.send(Pipe.pageFaulted(next.pages))
      }
    }
  })

  /** Carries out what a transition asks for. `pages` are the event's, if it has any. */
  const advance = (event: PisState.PisEvent, pages: Float64Array, reason: () => Reason): Effect.Effect<void, Reason> =>
    Effect.gen(function*() {
      const { actions, state: next } = PisState.transition(state, event)
      state = next
      for (const action of actions) {
        switch (action) {
          case "TouchPages":
            triggered.push({ pages, tell: false })
            break
          case "CollectFaulted":
            triggered[triggered.length - 1]!.tell = true
            break
          case "QueueUnmapped":
            yield* channel.send(Pipe.pageUnmapped(pages))
            break
          case "QueueQuit":
            yield* channel.send(Pipe.quit("guest"))
            yield* advance({ _tag: "QuitWritten" }, none, reason)
            break
          case "PauseGuest":
            return yield* reason()
        }
      }
      if (triggered.length > 0) untouched.openUnsafe()
    })

  const handle = (message: HandlerMessage): Effect.Effect<void, Reason> => {
    switch (message._tag) {
      case "TriggerPageFault":
        return advance(message, message.pages, daemonError)
      case "Discarded":
        return advance({ _tag: "Unmapped" }, hostPages(message.idstr, message.offset, message.length), daemonError)
      case "Quit":
      case "QuitRequested":
      case "Error":
        return advance(message, none, daemonError)
      case "ChannelClosed":
        return advance(
          { _tag: "ChannelEof" },
          none,
          () => new DaemonFailed({ detail: `the umem daemon was lost: ${message.detail}` })
        )
      case "Ready":
        return Effect.fail(new DaemonFailed({ detail: "the umem daemon sent READY twice" }))
    }
  }

  const messages = Effect.gen(function*() {
    while (!PisState.isQuitSent(state)) {
      for (const message of yield* Queue.takeBetween(inbox, 1, BATCH)) yield* handle(message)
      yield* advance({ _tag: "TurnEnd" }, none, daemonError)
      channel.resume()
    }
  })

  yield* Effect.raceFirst(messages, touching)
})

const none = new Float64Array(0)
