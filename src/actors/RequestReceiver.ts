/**
 * Reads the request stream on the source and hands each request to the sender while still in the readiness callback, so
 * that a page asked for leaves before any queue is touched. How the stream ends goes to the sender's mailbox: an end of
 * connection, a protocol error and an end of file are three different things.
 *
 * Hot path: no Effect per page.
 */
import * as Queue from "effect/Queue"
import { LinkFailed, MalformedInput, type Reason } from "../MigrationError.ts"
import { errnoName } from "../native/Errno.ts"
import type { Dialect } from "../protocol/Dialect.ts"
import type { RamBlock } from "../protocol/RamBlock.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import type { PageServer, RequestSource, SenderMessage } from "./Mailboxes.ts"

/** The window one message fits in. */
const READ_BYTES = 32 * 1024
/** Windows read in one poll: a destination that asks without end must not keep the pages, or the process, waiting. */
const MOST_READS = 4

export interface RequestReceiver extends RequestSource {
  /** True once anything came back: the guest runs at the destination. */
  readonly heard: () => boolean
  /** The block that a request without a name means, if the next byte to come begins a request. */
  readonly continuing: () => string | undefined
  /** Whether the link may be read elsewhere, and what is not answered there be given to {@link take}. */
  readonly open: () => boolean
  /** So many bytes of requests were answered elsewhere. */
  readonly passed: (bytes: number) => void
  /** Takes bytes that were read elsewhere. */
  readonly take: (chunk: Uint8Array) => void
  readonly bytesReceived: () => number
}

export interface Options {
  readonly dialect: Dialect
  readonly link: Link
  readonly blocks: ReadonlyArray<RamBlock>
  readonly targetPageSize: number
  readonly server: PageServer
  readonly sender: Queue.Enqueue<SenderMessage>
}

export const make = (options: Options): RequestReceiver => {
  const { blocks, dialect, link, sender, server, targetPageSize } = options
  const buffer = new Uint8Array(READ_BYTES)
  const decoder = dialect.requests({ blocks, targetPageSize })
  let bytes = 0
  let ended = false
  let polled = false

  const finish = (message: SenderMessage) => {
    ended = true
    Queue.offerUnsafe(sender, message)
  }
  const fail = (reason: Reason) => finish({ _tag: "ReceiveError", reason })

  const decode = () => {
    while (!ended) {
      const outcome = decoder.next()
      switch (outcome._tag) {
        case "NeedMore":
          return
        case "Message":
          if (outcome.message._tag === "Eoc") finish({ _tag: "Eoc" })
          else if (outcome.message._tag === "Failed") {
            fail(new LinkFailed({ code: "EREMOTEIO", detail: outcome.message.detail }))
          } else server.serve(outcome.message)
          break
        case "Malformed":
          fail(
            new MalformedInput({
              offset: outcome.offset,
              detail: outcome.truncated
                ? `the destination closed the connection inside a request (byte ${outcome.offset} of the request stream)`
                : `the destination sent a request that cannot be: ${outcome.message} (byte ${outcome.offset} of the request stream)`
            })
          )
          return
        case "End":
          finish({
            _tag: "ReceiveEof",
            reason: new LinkFailed({
              code: "EOF",
              detail: "the destination closed the connection without confirming the pages"
            })
          })
          return
      }
    }
  }

  return {
    poll: () => {
      // A decoder may bring bytes that were read before the actors took over, and nothing may follow them.
      if (!polled) decode()
      polled = true
      for (let reads = 0; !ended && reads < MOST_READS; reads++) {
        const n = link.read(buffer, 0, buffer.length)
        if (n === AGAIN) return
        if (n < 0) {
          const code = errnoName(-n)
          fail(new LinkFailed({ code, detail: `the connection to the destination failed: ${code}` }))
          return
        }
        if (n === 0) decoder.finish()
        else {
          bytes += n
          decoder.push(n === buffer.length ? buffer : buffer.subarray(0, n))
        }
        decode()
        if (n < buffer.length) return
      }
    },
    heard: () => bytes > 0,
    continuing: () => polled && !ended ? decoder.continuing?.() : undefined,
    open: () => polled && !ended,
    passed: (count) => {
      bytes += count
      decoder.passed?.(count)
    },
    take: (chunk) => {
      bytes += chunk.length
      decoder.push(chunk)
      decode()
    },
    bytesReceived: () => bytes,
    ended: () => ended
  }
}
