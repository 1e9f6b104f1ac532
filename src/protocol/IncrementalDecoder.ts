/**
 * What the incremental decoders have in common: a receive buffer, the end of the input, and an answer that stays the
 * same once it was `End` or `Malformed`. A decoder of one format only says what the next bytes are.
 */
import { type Decoder, type End, end, type Malformed, type Message, needMore, type Outcome } from "./Decoder.ts"
import { ReceiveBuffer } from "./ReceiveBuffer.ts"

export abstract class IncrementalDecoder<A> implements Decoder<A> {
  protected readonly input: ReceiveBuffer
  private finished = false
  private final: End | Malformed | undefined

  /** `offset`: that of the first byte in the stream; `capacity`: bytes the buffer has before it grows. */
  constructor(offset: number, capacity: number) {
    this.input = new ReceiveBuffer(offset, capacity)
  }

  push(bytes: Uint8Array): void {
    if (this.final?._tag !== "Malformed" && !this.finished) this.input.push(bytes)
  }

  finish(): void {
    this.finished = true
  }

  next(): Outcome<A> {
    if (this.final !== undefined) return this.final
    const result = this.step()
    if (result === undefined) return this.finished ? this.final = this.conclude() : needMore
    if (result._tag !== "Message") this.final = result
    return result
  }

  remainder(): Uint8Array {
    return this.input.take()
  }

  /** The next message; `undefined` when bytes are missing for it. Consumes nothing but whole messages. */
  protected abstract step(): Message<A> | Malformed | End | undefined

  /** Whether the input may end here, given that no byte is left. */
  protected abstract atBoundary(): boolean

  /** What the whole bytes are missing in, for the message of a truncated input. */
  protected abstract readonly what: string

  /** Wrong input at `at` bytes from the first one not consumed. */
  protected malformed(at: number, message: string): Malformed {
    return { _tag: "Malformed", offset: this.input.offset + at, message, truncated: false }
  }

  private conclude(): End | Malformed {
    if (this.input.available === 0 && this.atBoundary()) return end
    return {
      _tag: "Malformed",
      offset: this.input.offset,
      message: `the input ends inside ${this.what}, ${this.input.available} bytes into it`,
      truncated: true
    }
  }
}
