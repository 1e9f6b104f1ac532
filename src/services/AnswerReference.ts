/**
 * The source's half of an exchange of pages in plain TypeScript, with looks instead of waits: the reference for the addon's
 * `answerRequests` and `sendRanges`, and what doubles run on. The same plans, and the same results.
 *
 * Hot path: no Effect per page.
 */
import { getHalf, getWord, Log, MOST_AT_ONCE, putWord, REQUEST_HEAD, test, WORD } from "./ExchangeWire.ts"
import type { SourceBlock } from "./GuestMemory.ts"
import { AGAIN } from "./Link.ts"
import { Answer, LOG_WORDS } from "./PageExchange.ts"

const ENOBUFS = -105
/** What is pushed at once: bytes, and pages, for those of one byte take hardly any room. */
const CHUNK = 32 * 1024
const MOST_PUSHED = 128
/** Pages behind the cursor within which the guest follows it, and how much more may go before it then. */
const NEAR = 16
const FOLLOWED = 16
/** Looks of one call. The addon's calls end by time. */
const MOST_LOOKS = 256

/** `answer` of a source's block, see {@link Answer}. */
export const answerOver =
  (gather: NonNullable<SourceBlock["gather"]>): NonNullable<SourceBlock["answer"]> =>
  (link, plan, dirty, input, output) => {
    const log = new Log(plan, Answer.words)
    const pages = plan[Answer.pages]!
    const pageSize = plan[Answer.pageSize]!
    const range = new Float64Array(4)
    let cursor = plan[Answer.cursor]!
    let follows = false
    let have = 0
    let bytesIn = 0
    plan[Answer.pendingAt] =
      plan[Answer.pendingEnd] =
      plan[Answer.contended] =
      plan[Answer.full] =
        0
    const unlogged = (page: number, count: number) =>
      log.without(page, count, (i) => [log.word(i, 0), Math.max(1, log.word(i, 3))])

    const reply = (count: number): boolean => {
      const asked: Array<number> = []
      for (let i = 0; i < count; i++) {
        const page = getWord(input, REQUEST_HEAD + WORD * i)
        if (page >= pages || !test(dirty, page) || unlogged(page, 1) === 0) return false
        if (!asked.includes(page)) asked.push(page)
      }
      if (asked.length * (WORD + pageSize) > output.length) return false
      let end = 0
      const entries = asked.map((page) => {
        range.set([page * pageSize, pageSize, WORD, -1])
        if (gather(range, 1, output, end) < 1) return undefined
        const byte = range[3]!
        putWord(output, end, page * pageSize + (byte < 0 ? plan[Answer.pageFlags]! : plan[Answer.fillFlags]!))
        const size = WORD + (byte < 0 ? pageSize : 1)
        end += size
        return [page, byte, size, 0] as const
      })
      if (entries.includes(undefined)) return false
      const sent = link.write(output, 0, end)
      if (sent <= 0) return false
      if (sent < end) {
        plan[Answer.pendingAt] = sent
        plan[Answer.pendingEnd] = end
      }
      for (const entry of entries) log.add(...entry!)
      if (asked.length > 0 && cursor < pages) {
        follows = asked[0]! >= cursor && asked[0]! - cursor < NEAR
        cursor = asked.at(-1)!
      }
      return true
    }

    const push = (): boolean => {
      if (cursor >= pages || plan[Answer.pendingEnd]! > 0) return false
      const unread = plan[Answer.unread]! * (follows ? FOLLOWED : 1)
      if (unread > 0 && link.unsent() > unread) return false
      const runs: Array<[first: number, fills: number, bytes: number, pages: number]> = []
      const chunk = unread > 0 ? Math.min(CHUNK, unread) : CHUNK
      let end = 0
      let page = cursor
      let looked = 0
      while (page < pages && looked < MOST_PUSHED && end < chunk && runs.length < MOST_AT_ONCE) {
        let count = 0
        while (count < MOST_PUSHED - looked && page + count < pages && test(dirty, page + count)) count++
        count = unlogged(page, count)
        if (count === 0) {
          page++
          continue
        }
        const run: (typeof runs)[number] = [page, 0, 0, 0]
        while (run[3] < count && end < chunk && end + WORD + pageSize <= output.length) {
          range.set([page * pageSize, pageSize, WORD, -1])
          if (gather(range, 1, output, end) < 1) return false
          const byte = range[3]!
          putWord(output, end, page * pageSize + (byte < 0 ? plan[Answer.pageFlags]! : plan[Answer.fillFlags]!))
          const size = WORD + (byte < 0 ? pageSize : 1)
          if (byte >= 0) run[1]++
          run[2] += size
          run[3]++
          end += size
          page++
          looked++
        }
        if (run[3] === 0) break
        runs.push(run)
      }
      if (runs.length === 0) {
        cursor = page
        return false
      }
      const sent = link.write(output, 0, end)
      plan[Answer.full] = sent === AGAIN ? 1 : 0
      if (sent <= 0) return false
      if (sent < end) {
        plan[Answer.pendingAt] = sent
        plan[Answer.pendingEnd] = end
      }
      for (const run of runs) log.add(...run)
      cursor = page
      return true
    }

    const replyAll = (): boolean => {
      if (plan[Answer.answers] !== 1) return false
      while (have >= REQUEST_HEAD) {
        const count = getHalf(input, 1)
        if (input[0] !== plan[Answer.command] || count === 0 || count > MOST_AT_ONCE) return false
        const length = REQUEST_HEAD + WORD * count
        if (have < length) return true
        if (!log.hasRoom(MOST_AT_ONCE) || !reply(count)) return false
        bytesIn += length
        have -= length
        input.copyWithin(0, length, length + have)
        if (plan[Answer.pendingEnd]! > 0) return false
      }
      return have === 0 || input[0] === plan[Answer.command]
    }

    for (let looks = 0; looks < MOST_LOOKS && log.hasRoom(MOST_AT_ONCE); looks++) {
      const n = link.read(input, have, input.length - have)
      if (n > 0) {
        have += n
        if (!replyAll()) break
      } else if (n !== AGAIN || !push()) break
      if (plan[Answer.pendingEnd]! > 0) break
    }
    plan[Answer.cursor] = cursor
    plan[Answer.unhandled] = have
    plan[Answer.bytesIn] = bytesIn
    plan[Answer.logged] = log.count
    return log.count
  }

/** Makes pages of one byte whole again; false when `rest` has no room for them. */
const unfold = (ranges: Float64Array, count: number, rest: Uint8Array): boolean => {
  let at = 0
  for (let i = 0; i < count; i++) {
    const [length, , byte] = ranges.subarray(i * LOG_WORDS + 1, (i + 1) * LOG_WORDS) as unknown as [
      number,
      number,
      number
    ]
    const data = at + WORD
    at = data + length
    if (at > rest.length) return false
    if (byte < 0) continue
    rest.copyWithin(at, data + 1)
    rest.fill(byte, data, at)
    ranges[i * LOG_WORDS + 3] = -1
  }
  return true
}

/** `send` of a source's block. */
export const sendOver =
  (gather: NonNullable<SourceBlock["gather"]>): NonNullable<SourceBlock["send"]> =>
  (link, ranges, count, flags, fillFlags, rest) => {
    for (let i = 0; i < count; i++) ranges[i * LOG_WORDS + 2] = WORD
    const taken = gather(ranges, count, rest, 0)
    if (taken < count) return taken < 0 ? taken : ENOBUFS
    if (fillFlags === 0 && !unfold(ranges, count, rest)) return ENOBUFS
    let end = 0
    for (let i = 0; i < count; i++) {
      const [offset, length, , byte] = ranges.subarray(i * LOG_WORDS, (i + 1) * LOG_WORDS) as unknown as [
        number,
        number,
        number,
        number
      ]
      putWord(rest, end, offset + (byte < 0 ? flags : fillFlags))
      end += WORD + (byte < 0 ? length : 1)
    }
    const sent = link.write(rest, 0, end)
    if (sent < 0 && sent !== AGAIN) return sent
    const from = Math.max(0, sent)
    rest.copyWithin(0, from, end)
    return end - from
  }
