/**
 * The return path, destination to source: be16 type, be16 length, payload. The destination asks for pages it waits for
 * (one host page a message), answers pings, reports its received bitmap in a recovery, and says last how it ended.
 */
import type { Bitmap } from "../Bitmap.ts"
import { Bytes } from "./Bytes.ts"
import { BITMAP_END, Reply, RESUME_ACK } from "./Constants.ts"
import * as ReceivedBitmap from "./ReceivedBitmap.ts"

export type ReturnMessage =
  /** 0: all is well; anything else: the destination failed. Nothing follows. */
  | { readonly _tag: "Shut"; readonly status: number }
  | { readonly _tag: "Pong"; readonly value: number }
  | {
    readonly _tag: "ReqPages"
    readonly idstr: string
    /** Bytes in the block. */
    readonly start: number
    readonly length: number
    /** Whether the message named its block; otherwise it means that of the request before. */
    readonly named: boolean
  }
  /** A set bit is a target page that the destination has. */
  | { readonly _tag: "RecvBitmap"; readonly idstr: string; readonly received: Bitmap }
  | { readonly _tag: "ResumeAck" }

const message = (type: number, payload: Uint8Array): Uint8Array =>
  new Bytes().u16(type).u16(payload.length).raw(payload).done()

export const shut = (status: number): Uint8Array => message(Reply.Shut, new Bytes().u32(status).done())
export const pong = (value: number): Uint8Array => message(Reply.Pong, new Bytes().u32(value).done())
export const reqPages = (start: number, length: number, idstr?: string): Uint8Array => {
  const payload = new Bytes().u64(start).u32(length)
  return idstr === undefined
    ? message(Reply.ReqPages, payload.done())
    : message(Reply.ReqPagesId, payload.name(idstr).done())
}
export const resumeAck = (): Uint8Array => message(Reply.ResumeAck, new Bytes().u32(RESUME_ACK).done())
export const recvBitmap = (idstr: string, received: Bitmap): Uint8Array => {
  const bits = ReceivedBitmap.encode(received)
  return new Bytes().raw(message(Reply.RecvBitmap, new Bytes().name(idstr).done())).u64(bits.length).raw(bits)
    .u64(BITMAP_END).done()
}

export { decoder, type DecoderOptions } from "./ReturnPathDecoder.ts"
