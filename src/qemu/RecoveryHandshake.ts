/**
 * The handshake of a recovery: the destination tells which pages it has, block by block, and confirms that it goes on. A
 * QEMU 7.2 whose connection breaks in the middle of it crashes, and the guest with it; so everything that can fail is
 * done before the connection is made, and nothing interrupts this.
 *
 *   ▶ RECV_BITMAP block …   ◀ bitmap block …   ▶ POSTCOPY_RESUME   ◀ RESUME_ACK, and the requests that are pending
 */
import * as Effect from "effect/Effect"
import { LinkFailed, MalformedInput } from "../MigrationError.ts"
import type { Bitmap } from "../protocol/Bitmap.ts"
import { Bytes } from "../protocol/qemu/Bytes.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import * as Stream from "../protocol/qemu/Stream.ts"
import type { Link } from "../services/Link.ts"
import * as LinkIo from "../services/LinkIo.ts"

export interface Recovered {
  /** A bitmap a block, in the order of the blocks. */
  readonly received: ReadonlyArray<Bitmap>
  /** Bytes of the return path that follow the handshake. */
  readonly remainder: Uint8Array
  /** Both directions. */
  readonly bytes: number
}

const READ_BYTES = 64 * 1024

export const perform = (
  link: Link,
  blocks: ReadonlyArray<QemuBlock>
): Effect.Effect<Recovered, LinkFailed | MalformedInput> =>
  Effect.gen(function*() {
    const decoder = ReturnPath.decoder({ blocks })
    const buffer = new Uint8Array(READ_BYTES)
    let bytes = 0
    const next = Effect.fnUntraced(function*(what: string) {
      while (true) {
        const outcome = decoder.next()
        if (outcome._tag === "Message") return outcome.message
        if (outcome._tag !== "NeedMore") {
          const detail = outcome._tag === "End"
            ? `the destination closed the connection before ${what}`
            : `the destination answered the recovery with what cannot be: ${outcome.message}`
          return yield* outcome._tag === "End"
            ? new LinkFailed({ code: "EOF", detail })
            : new MalformedInput({ offset: outcome.offset, detail })
        }
        const n = yield* LinkIo.readSome(link, buffer)
        bytes += n
        if (n === 0) decoder.finish()
        else decoder.push(buffer.subarray(0, n))
      }
    })
    const asked = new Bytes()
    for (const { idstr } of blocks) asked.raw(Stream.recvBitmap(idstr))
    yield* LinkIo.writeAll(link, asked.done())
    const received: Array<Bitmap> = []
    for (const { idstr } of blocks) {
      const message = yield* next(`the bitmap of block ${idstr}`)
      if (message._tag !== "RecvBitmap" || message.idstr !== idstr) {
        const detail = `the destination sent ${message._tag} where the bitmap of block ${idstr} must be`
        return yield* new MalformedInput({ offset: -1, detail })
      }
      received.push(message.received)
    }
    const resume = Stream.postcopyResume()
    yield* LinkIo.writeAll(link, resume)
    const answer = yield* next("RESUME_ACK")
    if (answer._tag !== "ResumeAck") {
      return yield* new MalformedInput({
        offset: -1,
        detail: `the destination sent ${answer._tag} where RESUME_ACK must be`
      })
    }
    return { received, remainder: decoder.remainder(), bytes: bytes + asked.length + resume.length }
  })
