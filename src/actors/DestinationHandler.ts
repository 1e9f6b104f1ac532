/**
 * The guest's side of the daemon channel: the READY handshake, faults taken on the daemon's behalf, notices of memory
 * given back, and QUIT both ways. It never touches guest memory itself; a prefault runs on a thread of its own. An ERROR,
 * or the end of the channel before QUIT, means that pages will not come: that is its failure, and the guest stays parked.
 */
import * as Effect from "effect/Effect"
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
export const run = Effect.fnUntraced(function*(options: Options) {
  const { channel, daemonError, hostPages, inbox, prefault } = options
  let state = PisState.initial
  while (!PisState.isQuitSent(state)) {
    const messages = yield* Queue.takeBetween(inbox, 1, BATCH)
    for (const message of messages) {
      switch (message._tag) {
        case "TriggerPageFault": {
          yield* prefault(message.pages)
          if (!PisState.isQuitQueued(state)) yield* channel.send(Pipe.pageFaulted(message.pages))
          break
        }
        case "Discarded": {
          if (PisState.isQuitQueued(state)) break
          yield* channel.send(Pipe.pageUnmapped(hostPages(message.idstr, message.offset, message.length)))
          break
        }
        case "Quit": {
          state = PisState.transition(state, { _tag: "Quit" }).state
          yield* channel.send(Pipe.quit("guest"))
          state = PisState.transition(state, { _tag: "QuitWritten" }).state
          break
        }
        case "QuitRequested": {
          if (PisState.isQuitQueued(state)) break
          state = PisState.transition(state, { _tag: "QuitRequested" }).state
          yield* channel.send(Pipe.quit("guest"))
          state = PisState.transition(state, { _tag: "QuitWritten" }).state
          break
        }
        case "Error":
          return yield* daemonError()
        case "ChannelClosed":
          if (PisState.isQuitReceived(state)) break
          return yield* new DaemonFailed({ detail: `the umem daemon was lost: ${message.detail}` })
        case "Ready":
          return yield* new DaemonFailed({ detail: "the umem daemon sent READY twice" })
      }
    }
    channel.resume()
  }
})
