/**
 * Decodes the return path on the source. Each field is judged when its own bytes are there; what it keeps is bounded by
 * the largest message and by the bitmap of a block that it knows.
 */
import type { Decoder, Malformed, Message } from "../Decoder.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import { BlockTable } from "../umem/Names.ts"
import { BITMAP_END, MAX_REPLY_BYTES, Reply, RESUME_ACK, TARGET_PAGE_SIZE } from "./Constants.ts"
import type { QemuBlock } from "./QemuBlock.ts"
import * as ReceivedBitmap from "./ReceivedBitmap.ts"
import type { ReturnMessage } from "./ReturnPath.ts"

export interface DecoderOptions {
  readonly blocks: ReadonlyArray<QemuBlock>
}

/** Bytes of type and length. */
const HEADER = 4
/** Bytes the buffer has before it grows. */
const BUFFER_BYTES = 16 * 1024

/** Shortest and longest payload of each type. */
const lengths: Readonly<Record<number, readonly [number, number]>> = {
  [Reply.Shut]: [4, 4],
  [Reply.Pong]: [4, 4],
  [Reply.ReqPagesId]: [14, 268],
  [Reply.ReqPages]: [12, 12],
  [Reply.RecvBitmap]: [2, 256],
  [Reply.ResumeAck]: [4, 4]
}

class ReturnPathDecoder extends IncrementalDecoder<ReturnMessage> {
  protected readonly what = "a message of the return path"
  private readonly table: BlockTable
  private readonly blocks: ReadonlyArray<QemuBlock>
  /** Block of the last request. */
  private context: QemuBlock | undefined
  private ended = false

  constructor({ blocks }: DecoderOptions) {
    super(0, BUFFER_BYTES)
    this.blocks = blocks
    this.table = new BlockTable(blocks)
  }

  protected atBoundary(): boolean {
    return true
  }

  protected step(): Message<ReturnMessage> | Malformed | undefined {
    const { input } = this
    if (this.ended && input.available > 0) return this.malformed(0, "bytes follow the end of the return path")
    if (input.available < 2) return undefined
    const type = this.u16(0)
    const bounds = lengths[type]
    if (bounds === undefined) return this.malformed(0, `unknown return path message ${type}`)
    if (input.available < HEADER) return undefined
    const length = this.u16(2)
    if (length < bounds[0] || length > bounds[1] || length > MAX_REPLY_BYTES) {
      return this.malformed(2, `${length} bytes of return path message ${type}: ${bounds.join(" to ")} are possible`)
    }
    if (input.available < HEADER + length) return undefined
    switch (type) {
      case Reply.Shut:
        this.ended = true
        return this.message(HEADER + length, { _tag: "Shut", status: input.be32(HEADER) })
      case Reply.Pong:
        return this.message(HEADER + length, { _tag: "Pong", value: input.be32(HEADER) })
      case Reply.ResumeAck: {
        const value = input.be32(HEADER)
        if (value !== RESUME_ACK) return this.malformed(HEADER, `RESUME_ACK carries ${value}, not ${RESUME_ACK}`)
        return this.message(HEADER + length, { _tag: "ResumeAck" })
      }
      case Reply.RecvBitmap:
        return this.bitmap(length)
      default:
        return this.request(type === Reply.ReqPagesId, length)
    }
  }

  private request(named: boolean, length: number): Message<ReturnMessage> | Malformed {
    const { input } = this
    if (named) {
      const found = this.named(HEADER + 12, length - 12)
      if ("_tag" in found) return found
      this.context = found
    }
    const block = this.context
    if (block === undefined) return this.malformed(0, "a request that continues a block, before any block was named")
    const start = input.be64(HEADER)
    const bytes = input.be32(HEADER + 8)
    if (start % block.pageSize !== 0 || start >= block.length) {
      return this.malformed(
        HEADER,
        `a request at byte ${
          input.be64Exact(HEADER)
        }: no page of ${block.pageSize} bytes begins there in ${block.idstr}`
      )
    }
    if (bytes === 0 || bytes % block.pageSize !== 0 || bytes > block.length - start) {
      return this.malformed(HEADER + 8, `a request for ${bytes} bytes at ${start} of block ${block.idstr}`)
    }
    return this.message(HEADER + length, { _tag: "ReqPages", idstr: block.idstr, start, length: bytes, named })
  }

  private bitmap(length: number): Message<ReturnMessage> | Malformed | undefined {
    const { input } = this
    const block = this.named(HEADER, length)
    if ("_tag" in block) return block
    const at = HEADER + length
    if (input.available < at + 8) return undefined
    const pages = Math.ceil(block.length / TARGET_PAGE_SIZE)
    const size = ReceivedBitmap.bytesFor(pages)
    if (input.be64(at) !== size) {
      return this.malformed(
        at,
        `a bitmap of ${input.be64Exact(at)} bytes for block ${block.idstr}: ${size} are expected`
      )
    }
    const end = at + 8 + size
    if (input.available < end + 8) return undefined
    if (input.be64Exact(end) !== BITMAP_END) return this.malformed(end, "the end mark of a received bitmap is wrong")
    const from = input.start + at + 8
    const received = ReceivedBitmap.decode(input.bytes.subarray(from, from + size), pages)
    return this.message(end + 8, { _tag: "RecvBitmap", idstr: block.idstr, received })
  }

  /** The block whose name fills `length` bytes at `at`. */
  private named(at: number, length: number): QemuBlock | Malformed {
    const { input } = this
    if (input.u8(at) !== length - 1) return this.malformed(at, "the block's name does not fill its message")
    if (length === 1) return this.malformed(at, "the block's name is empty")
    const problem = this.table.find(input, at + 1, length - 1)
    return problem === undefined ? this.blocks[this.table.index]! : this.malformed(at + 1, problem)
  }

  private u16(at: number): number {
    return this.input.u8(at) * 256 + this.input.u8(at + 1)
  }

  private message(length: number, message: ReturnMessage): Message<ReturnMessage> {
    const { offset } = this.input
    this.input.consume(length)
    return { _tag: "Message", offset, message }
  }
}

/** A decoder of one connection's return path. */
export const decoder = (options: DecoderOptions): Decoder<ReturnMessage> => new ReturnPathDecoder(options)
