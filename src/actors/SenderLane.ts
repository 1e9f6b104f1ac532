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
import type { PageEncoder, SimpleExchange } from "../protocol/Dialect.ts"
import { RANGE_WORDS, type SourceBlock } from "../services/GuestMemory.ts"
import { AGAIN, type Link } from "../services/Link.ts"

const EFAULT = 14

/** Pages of one run, at most. */
export const RUN_PAGES = 15

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
  /**
   * Encodes the first `count` of these pages of a block whose unit is one page; they fit the capacity, whatever they hold.
   * Where the buffer is empty and pages are not of one byte, as far as the socket takes them they go there at once, see
   * `takeSent`. Why not, when memory cannot be read.
   */
  readonly emitRun: (state: BlockState, pages: Float64Array, count: number) => Reason | undefined
  /** Goes on with the unit under way. */
  readonly proceed: (limit: number) => Reason | undefined
  readonly end: () => void
  /** The block of the last record: one that continues needs no name. */
  readonly continuing: () => SourceBlock | undefined
  /** Bytes that `emitRun` has sent since this was last asked. */
  readonly takeSent: () => number
  readonly hasSent: () => boolean
  /** Takes encoded bytes that the socket has not taken. */
  readonly resume: (rest: Uint8Array) => void
  /** Writes once: bytes taken, or a negative number when the socket takes none now, or why it never will. */
  readonly flush: () => number | Reason
}

export interface Options {
  readonly link: Link
  readonly encoder: PageEncoder
  /** How records that continue a block look, where they can be sent from where their pages lie. */
  readonly simple?: SimpleExchange | undefined
  readonly targetPageSize: number
  /** Bytes that may be encoded before a record more. */
  readonly capacity: number
  /** Called for each target page that is encoded, with whether it travels as one byte. */
  readonly onPage: (state: BlockState, page: number, fill: boolean) => void
}

export const make = (options: Options): SenderLane => {
  const { capacity, encoder, link, onPage, simple, targetPageSize } = options
  const out = new Uint8Array(capacity + targetPageSize + encoder.headerBytes + encoder.endBytes)
  let at = 0
  let end = 0
  let unit: BlockState | undefined
  let next = 0
  let last = 0
  /** Of the record encoded last. */
  let block: SourceBlock | undefined
  /** Whether the last run was of pages that travel whole, for which it is worth a system call of their own. */
  let dense = false
  let sent = 0
  const ranges = new Float64Array(RUN_PAGES * RANGE_WORDS)

  const unreadable = (idstr: string, errno: number) =>
    new LinkFailed({ code: errnoName(-errno), detail: `the guest's memory (block ${idstr}) cannot be read` })

  const encode = (state: BlockState, page: number): Reason | undefined => {
    block = state.block
    const offset = page * targetPageSize
    const byte = block.fillByte(offset, targetPageSize)
    if (byte >= 0 && encoder.fills(byte)) {
      end += encoder.fill(out, end, block.idstr, offset, byte)
      onPage(state, page, true)
      return undefined
    }
    end += encoder.page(out, end, block.idstr, offset)
    const n = block.read(offset, out, end, targetPageSize)
    if (n < 0) return unreadable(block.idstr, n)
    end += targetPageSize
    onPage(state, page, false)
    return undefined
  }

  /** A run was sent but for what is in the buffer now. */
  const sentRun = (state: BlockState, pages: Float64Array, from: number, count: number): undefined => {
    dense = false
    sent -= end
    for (let i = from, word = 3; i < count; i++, word += RANGE_WORDS) {
      const fill = ranges[word]! >= 0
      if (!fill) dense = true
      sent += encoder.continuedBytes! + (fill ? 1 : targetPageSize)
      onPage(state, pages[i]!, fill)
    }
  }

  const emitEach = (state: BlockState, pages: Float64Array, from: number, count: number): Reason | undefined => {
    for (let i = from; i < count; i++) {
      const failed = encode(state, pages[i]!)
      if (failed !== undefined) return failed
    }
    return undefined
  }

  const emitRun = (state: BlockState, pages: Float64Array, count: number): Reason | undefined => {
    const { continuedBytes } = encoder
    let from = 0
    // The record that names its block is not like the others; nor is any where the dialect or the block has no bursts.
    if (continuedBytes === undefined || state.block.gather === undefined) return emitEach(state, pages, 0, count)
    if (block !== state.block) {
      const failed = emitEach(state, pages, 0, from = 1)
      if (failed !== undefined || count === 1) return failed
    }
    const { gather, idstr, send } = state.block
    for (let i = from, word = 0; i < count; i++, word += RANGE_WORDS) {
      ranges[word] = pages[i]! * targetPageSize
      ranges[word + 1] = targetPageSize
      ranges[word + 2] = continuedBytes!
    }
    if (dense && at === end && send !== undefined && simple !== undefined) {
      const rest = send(link, ranges, count - from, simple.pageFlags, simple.fillFlags, out)
      // What went wrong is found again on the other way, and said there.
      if (rest >= 0) {
        at = 0
        end = rest
        return sentRun(state, pages, from, count)
      }
    }
    const taken = gather!(ranges, count - from, out, end)
    if (taken < count - from) return unreadable(idstr, taken < 0 ? taken : -EFAULT)
    // A page of one byte that the dialect has no word for was gathered as that byte: it has to be read whole.
    for (let word = 3; word < taken * RANGE_WORDS; word += RANGE_WORDS) {
      if (ranges[word]! >= 0 && !encoder.fills(ranges[word]!)) return emitEach(state, pages, from, count)
    }
    dense = false
    for (let i = from, word = 0; i < count; i++, word += RANGE_WORDS) {
      const byte = ranges[word + 3]!
      if (byte < 0) {
        end += encoder.page(out, end, idstr, ranges[word]!) + targetPageSize
        dense = true
      } else end += encoder.fill(out, end, idstr, ranges[word]!, byte)
      onPage(state, pages[i]!, byte >= 0)
    }
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
    emitRun,
    proceed,
    end: () => {
      end += encoder.end(out, end)
    },
    continuing: () => block,
    hasSent: () => sent > 0,
    takeSent: () => {
      const n = sent
      sent = 0
      return n
    },
    resume: (rest) => {
      out.set(rest, end)
      end += rest.length
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
