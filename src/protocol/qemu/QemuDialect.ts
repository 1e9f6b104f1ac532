/**
 * QEMU's stream as the source's actors see it: page records and the bytes that end a migration out, the return path in.
 * A request is one host page, told as its target pages. The destination ends the connection only when it has every page.
 */
import type { Decoder, Outcome } from "../Decoder.ts"
import type { Dialect, PageEncoder, SourceRequest } from "../Dialect.ts"
import * as RamStream from "../umem/RamStream.ts"
import { RamFlag, TARGET_PAGE_SIZE } from "./Constants.ts"
import type { QemuBlock } from "./QemuBlock.ts"
import * as ReturnPath from "./ReturnPath.ts"
import * as Stream from "./Stream.ts"

export interface Options {
  readonly blocks: ReadonlyArray<QemuBlock>
  /** Hears each PONG. */
  readonly onPong?: (value: number) => void
  /** Bytes of the return path that were read before the actors took over. */
  readonly remainder?: Uint8Array
}

/** The channel of requested pages ends with a word of its own. */
export const preemptEncoder = (): PageEncoder => Stream.pageEncoder(RamStream.eos())

class Requests implements Decoder<SourceRequest> {
  readonly #inner: Decoder<ReturnPath.ReturnMessage>
  readonly #onPong: (value: number) => void

  constructor({ blocks, onPong = () => {}, remainder }: Options) {
    this.#inner = ReturnPath.decoder({ blocks })
    this.#onPong = onPong
    if (remainder !== undefined) this.#inner.push(remainder)
  }

  push(bytes: Uint8Array): void {
    this.#inner.push(bytes)
  }

  finish(): void {
    this.#inner.finish()
  }

  remainder(): Uint8Array {
    return this.#inner.remainder()
  }

  next(): Outcome<SourceRequest> {
    const outcome = this.#inner.next()
    if (outcome._tag !== "Message") return outcome
    const { message, offset } = outcome
    switch (message._tag) {
      case "ReqPages": {
        const first = message.start / TARGET_PAGE_SIZE
        const pages = Float64Array.from({ length: message.length / TARGET_PAGE_SIZE }, (_, i) => first + i)
        return { _tag: "Message", offset, message: { _tag: "OnDemand", idstr: message.idstr, pages } }
      }
      case "Pong":
        this.#onPong(message.value)
        return { _tag: "Message", offset, message: { _tag: "Init" } }
      case "Shut":
        return {
          _tag: "Message",
          offset,
          message: message.status === 0 ? { _tag: "Eoc" } : {
            _tag: "Failed",
            detail:
              `the destination's QEMU failed to load the guest (status ${message.status}); its own message says why`
          }
        }
      case "RecvBitmap":
      case "ResumeAck":
        return {
          _tag: "Malformed",
          offset,
          message: `${message._tag === "ResumeAck" ? "RESUME_ACK" : "RECV_BITMAP"} outside a recovery`,
          truncated: false
        }
    }
  }
}

export const make = (options: Options): Dialect => ({
  name: "qemu",
  encoder: () => Stream.pageEncoder(Stream.ending()),
  requests: () => new Requests(options),
  simple: { pageFlags: RamFlag.Page | RamFlag.Continue, fillFlags: RamFlag.Zero | RamFlag.Continue },
  mayEndEarly: false
})
