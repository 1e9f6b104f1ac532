/**
 * One end of the daemon channel: decodes what arrives into a mailbox and writes what is sent, both with back-pressure.
 * When the mailbox is full the channel is not read; when the channel takes no more, `send` waits. The link's one callback
 * is used for both directions, which is why they live together.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import { errnoName } from "../native/Errno.ts"
import * as Pipe from "../protocol/umem/Pipe.ts"
import { AGAIN, type Link } from "../services/Link.ts"

/** Bytes read at once: the receive window of the protocol. */
const READ_BYTES = 32 * 1024

export interface Channel {
  /** Sends whole messages, in the order of the calls. Completes when the other side's socket has taken them; false when it is gone. */
  readonly send: (bytes: Uint8Array) => Effect.Effect<boolean>
  /** Reads on after the mailbox was emptied. */
  readonly resume: () => void
  readonly close: () => void
}

export interface Options<M> {
  readonly link: Link
  /** Whose messages arrive here. */
  readonly from: "daemon" | "guest"
  readonly mailbox: Queue.Queue<M>
  readonly toMessage: (message: Pipe.PipeMessage) => M
  /** What is offered, once, when nothing more can arrive. */
  readonly ended: (detail: string) => M
}

export const make = <M>({ ended, from, link, mailbox, toMessage }: Options<M>): Channel => {
  const decoder = Pipe.decoder({ from })
  const buffer = new Uint8Array(READ_BYTES)
  let reading = true
  let closed = false
  let writable: Deferred.Deferred<void> | undefined
  /** Messages decoded while the mailbox was full. */
  let held: M | undefined
  /** Held by whoever is writing a message: two may send at once, and a message is written whole. */
  const writing = Semaphore.makeUnsafe(1)

  const watch = () => {
    if (!closed) link.watch(reading && held === undefined, writable !== undefined)
  }

  const give = (message: M): boolean => {
    if (Queue.offerUnsafe(mailbox, message as never)) return true
    held = message
    return false
  }

  /** Takes messages out of the decoder until it is empty or the mailbox is full. */
  const decode = (): boolean => {
    while (held === undefined) {
      const outcome = decoder.next()
      if (outcome._tag === "NeedMore") return true
      if (outcome._tag === "Message") give(toMessage(outcome.message))
      else {
        reading = false
        give(
          ended(
            outcome._tag === "End" ? "it closed its channel" : `it sent a message that cannot be: ${outcome.message}`
          )
        )
        return false
      }
    }
    return false
  }

  const read = () => {
    while (reading && decode()) {
      const n = link.read(buffer, 0, buffer.length)
      if (n === AGAIN) break
      if (n < 0) {
        reading = false
        give(ended(`its channel failed: ${errnoName(-n)}`))
        break
      }
      if (n === 0) decoder.finish()
      else decoder.push(buffer.subarray(0, n))
    }
    watch()
  }

  link.attach((readable, canWrite) => {
    if (canWrite && writable !== undefined) {
      const waiting = writable
      writable = undefined
      watch()
      Deferred.doneUnsafe(waiting, Effect.void)
    }
    if (readable && !closed) read()
  })
  watch()

  return {
    send: (bytes) =>
      Effect.gen(function*() {
        let at = 0
        while (at < bytes.length) {
          if (closed) return false
          const n = link.write(bytes, at, bytes.length - at)
          if (n > 0) at += n
          else if (n === AGAIN) {
            writable ??= Deferred.makeUnsafe()
            watch()
            yield* Deferred.await(writable)
          } else return false
        }
        return true
      }).pipe(writing.withPermit),
    resume: () => {
      if (held !== undefined) {
        const message = held
        held = undefined
        if (!give(message)) return
      }
      if (reading && !closed) read()
    },
    close: () => {
      closed = true
      link.close()
      if (writable !== undefined) Deferred.doneUnsafe(writable, Effect.void)
    }
  }
}
