/**
 * The bitmap list of the later dialects (2012-10 and later), of which only its terminator is spoken: an entry without
 * name, offset, length and bitmap, 25 zero bytes.
 */
import { end, type Malformed, type Message, needMore, type Outcome } from "../Decoder.ts"

/** u8 name length, be64 offset, be64 length, be64 bytes of bitmap. */
const TERMINATOR_BYTES = 25

export const terminator = (): Uint8Array => new Uint8Array(TERMINATOR_BYTES)

const malformed = (offset: number, message: string, truncated: boolean): Malformed => ({
  _tag: "Malformed",
  offset,
  message,
  truncated
})

/** Judges the bytes of a list that has no entries; `finished` when no more will come. */
export const decode = (bytes: Uint8Array, finished: boolean): Outcome<"Terminator"> => {
  const wrong = bytes.findIndex((byte) => byte !== 0)
  if (wrong === 0) return malformed(0, "an entry of a bitmap list, which is not spoken", false)
  if (wrong > 0 && wrong < TERMINATOR_BYTES) {
    return malformed(wrong, "the terminator of a bitmap list is not zero", false)
  }
  if (bytes.length >= TERMINATOR_BYTES) {
    return { _tag: "Message", offset: 0, message: "Terminator" } satisfies Message<"Terminator">
  }
  if (!finished) return needMore
  return bytes.length === 0 ? end : malformed(0, "the input ends inside a bitmap list", true)
}
