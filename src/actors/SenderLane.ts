/**
 * One connection of the source as its page stream sees it: a small buffer of encoded records, and how much of it the
 * socket has taken. A page of several target pages (huge pages) is encoded as a unit, in order and with nothing between,
 * over as many buffers as it takes.
 *
 * Hot path: no Effect per page.
 */
import { LinkFailed, type Reason } from "../MigrationError.ts"
import { errnoName } from "../native/Errno.ts"
import type { Bitmap } from "../protocol/Bitmap.ts"
import type { PageEncoder } from "../protocol/Dialect.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import { AGAIN, type Link } from "../services/Link.ts"

/** A block, and which of its pages have not been sent. */
export interface BlockState {
  readonly block: SourceBlock
  readonly dirty: Bitmap
  /** Number of this block's first page in the numbering over all blocks. */
  readonly base: number
  /** Target pages that travel together: 1, or those of a huge page. */
  readonly unit: number
}

export interface SenderLane {
  readonly link: Link
  /** Bytes encoded and not yet looked at by `flush`; 0 once all are taken. */
  readonly pending: () => number
  /** Whether a unit is begun and not encoded to its end. */
  readonly midUnit: () => boolean
  /** Encodes a page with its unit, as far as the buffer is below `limit`. Why not, when memory cannot be read. */
  readonly emit: (state: BlockState, page: number, limit: number) => Reason | undefined
  /** Goes on with the unit under way. */
  readonly proceed: (limit: number) => Reason | undefined
  readonly end: () => void
  /** Writes once: bytes taken, or a negative number when the socket takes none now, or why it never will. */
  readonly flush: () => number | Reason
}

export interface Options {
  readonly link: Link
  readonly encoder: PageEncoder
  readonly targetPageSize: number
  /** Bytes that may be encoded before a record more. */
  readonly capacity: number
  /** Called for each target page that is encoded, with whether it travels as one byte. */
  readonly onPage: (state: BlockState, page: number, fill: boolean) => void
}

export const make = (options: Options): SenderLane => {
  const { capacity, encoder, link, onPage, targetPageSize } = options
  const out = new Uint8Array(capacity + targetPageSize + encoder.headerBytes + encoder.endBytes)
  let at = 0
  let end = 0
  let unit: BlockState | undefined
  let next = 0
  let last = 0

  const encode = (state: BlockState, page: number): Reason | undefined => {
    const { block } = state
    const offset = page * targetPageSize
    const byte = block.fillByte(offset, targetPageSize)
    if (byte >= 0 && encoder.fills(byte)) {
      end += encoder.fill(out, end, block.idstr, offset, byte)
      onPage(state, page, true)
      return undefined
    }
    end += encoder.page(out, end, block.idstr, offset)
    const n = block.read(offset, out, end, targetPageSize)
    if (n < 0) {
      const detail = `the guest's memory (block ${block.idstr}) cannot be read`
      return new LinkFailed({ code: errnoName(-n), detail })
    }
    end += targetPageSize
    onPage(state, page, false)
    return undefined
  }

  const proceed = (limit: number): Reason | undefined => {
    while (unit !== undefined && end < limit) {
      const failed = encode(unit, next)
      if (failed !== undefined) return failed
      if (++next === last) unit = undefined
    }
    return undefined
  }

  return {
    link,
    pending: () => end - at,
    midUnit: () => unit !== undefined,
    emit: (state, page, limit) => {
      if (state.unit === 1) return encode(state, page)
      unit = state
      next = page - page % state.unit
      last = Math.min(next + state.unit, state.dirty.length)
      return proceed(limit)
    },
    proceed,
    end: () => {
      end += encoder.end(out, end)
    },
    flush: () => {
      const n = link.write(out, at, end - at)
      if (n === AGAIN) return n
      if (n <= 0) {
        const code = n === 0 ? "EIO" : errnoName(-n)
        return new LinkFailed({ code, detail: `the connection to the destination failed: ${code}` })
      }
      at += n
      if (at === end) at = end = 0
      return n
    }
  }
}
