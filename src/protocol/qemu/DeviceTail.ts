/**
 * Finds where the device state of a precopy stream ends. Its sections have no length, but what follows the last of them
 * is a footer, the EOF byte, and a description that always begins alike: `7e id 00 06 length {"page_size"`. A machine
 * that sends no description ends its stream behind the EOF byte.
 */
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { Record } from "./Constants.ts"

const opening = new TextEncoder().encode(`{"page_size"`)
/** Footer, EOF, type byte and length. */
const BEFORE_TEXT = 5 + 1 + 5

export class DeviceTail {
  /** Whether a description follows. */
  described = false
  #scanned = 0

  /** Bytes up to and including the last footer; `undefined` while the end is not in sight. */
  find(input: ReceiveBuffer, noMore: boolean): number | undefined {
    const last = input.available - BEFORE_TEXT - opening.length
    for (; this.#scanned <= last; this.#scanned++) {
      if (this.#at(input, this.#scanned)) {
        this.described = true
        return this.#scanned + 5
      }
    }
    const end = input.available - 6
    if (noMore && end >= 0 && input.u8(end) === Record.Footer && input.u8(end + 5) === Record.Eof) return end + 5
    return undefined
  }

  #at(input: ReceiveBuffer, at: number): boolean {
    if (input.u8(at) !== Record.Footer) return false
    if (input.u8(at + 5) !== Record.Eof || input.u8(at + 6) !== Record.VmDescription) return false
    for (let i = 0; i < opening.length; i++) if (input.u8(at + BEFORE_TEXT + i) !== opening[i]) return false
    return true
  }
}
