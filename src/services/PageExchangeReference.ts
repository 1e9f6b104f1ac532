/**
 * The two halves of an exchange of pages in plain TypeScript, with one look instead of a wait: the reference for the
 * addon's `answerRequests` and `fetchPages`, and what doubles run on. The same plans, and the same results.
 *
 * Hot path: no Effect per page.
 */
import type { SourceBlock } from "./GuestMemory.ts"
import { AGAIN, type Link } from "./Link.ts"
import { Answer, Fetch, LOG_WORDS, REQUEST_ROOM } from "./PageExchange.ts"
import { Event, EVENT_WORDS, type FaultChannel } from "./Userfaultfd.ts"

const MOST_AT_ONCE = 16
const ENOBUFS = -105
const WORD = 8
const REQUEST_HEAD = 5
const HALF = 0x100000000

const getHalf = (from: Uint8Array, at: number): number =>
  ((from[at]! << 24) | (from[at + 1]! << 16) | (from[at + 2]! << 8) | from[at + 3]!) >>> 0
const getWord = (from: Uint8Array, at: number): number => getHalf(from, at) * HALF + getHalf(from, at + 4)
const putHalf = (into: Uint8Array, at: number, half: number) => {
  for (let i = 0; i < 4; i++) into[at + i] = half >>> (24 - 8 * i)
}
const putWord = (into: Uint8Array, at: number, word: number) => {
  putHalf(into, at, Math.floor(word / HALF))
  putHalf(into, at + 4, word % HALF)
}
const test = (bits: Uint8Array, index: number): boolean => ((bits[index >> 3] ?? 0) >> (index & 7) & 1) === 1

/** The log behind the fixed words of a plan. */
class Log {
  count = 0
  readonly #plan: Float64Array
  readonly #fixed: number
  constructor(plan: Float64Array, fixed: number) {
    this.#plan = plan
    this.#fixed = fixed
  }
  hasRoom(entries: number): boolean {
    return this.#fixed + (this.count + entries) * LOG_WORDS <= this.#plan.length
  }
  add(...entry: readonly [number, number, number, number]): void {
    this.#plan.set(entry, this.#fixed + this.count++ * LOG_WORDS)
  }
  has(...beginning: ReadonlyArray<number>): boolean {
    for (let i = 0, at = this.#fixed; i < this.count; i++, at += LOG_WORDS) {
      if (beginning.every((word, j) => this.#plan[at + j] === word)) return true
    }
    return false
  }
}

/** `answer` of a source's block, see {@link Answer}; `nanos` is the time that the log gets. */
export const answerOver = (
  gather: NonNullable<SourceBlock["gather"]>,
  nanos: () => number = () => 0
): NonNullable<SourceBlock["answer"]> =>
(link, plan, dirty, input, output) => {
  const log = new Log(plan, Answer.words)
  const pages = plan[Answer.pages]!
  const pageSize = plan[Answer.pageSize]!
  const range = new Float64Array(4)
  let have = 0
  let bytesIn = 0
  plan[Answer.pendingAt] = plan[Answer.pendingEnd] = plan[Answer.contended] = 0

  const reply = (count: number): boolean => {
    const asked: Array<number> = []
    for (let i = 0; i < count; i++) {
      const page = getWord(input, REQUEST_HEAD + WORD * i)
      if (page >= pages || !test(dirty, page) || log.has(page)) return false
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
      return [page, byte, size, nanos()] as const
    })
    if (entries.includes(undefined)) return false
    const sent = link.write(output, 0, end)
    if (sent <= 0) return false
    if (sent < end) {
      plan[Answer.pendingAt] = sent
      plan[Answer.pendingEnd] = end
    }
    for (const entry of entries) log.add(...entry!)
    return true
  }

  const replyAll = (): boolean => {
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

  while (log.hasRoom(MOST_AT_ONCE)) {
    const n = link.read(input, have, input.length - have)
    if (n <= 0) break
    have += n
    if (!replyAll()) break
  }
  plan[Answer.unhandled] = have
  plan[Answer.bytesIn] = bytesIn
  plan[Answer.logged] = log.count
  return log.count
}

/** `send` of a source's block. */
export const sendOver =
  (gather: NonNullable<SourceBlock["gather"]>): NonNullable<SourceBlock["send"]> =>
  (link, ranges, count, flags, fillFlags, rest) => {
    for (let i = 0; i < count; i++) ranges[i * LOG_WORDS + 2] = WORD
    const taken = gather(ranges, count, rest, 0)
    if (taken < count) return taken < 0 ? taken : ENOBUFS
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

/** `fetch` of the serving side of a userfaultfd, see {@link Fetch}. */
export const fetchOver = (
  channel: Pick<FaultChannel, "copy" | "drain" | "ring" | "zeropage">,
  nanos: () => number = () => 0
): NonNullable<FaultChannel["fetch"]> =>
(link, plan, requested, received, buffer) => {
  const log = new Log(plan, Fetch.words)
  const { ring } = channel
  const address = plan[Fetch.address]!
  const pages = plan[Fetch.pages]!
  const pageSize = plan[Fetch.pageSize]!
  const readAt = plan[Fetch.readAt]!
  const readMost = plan[Fetch.readMost]!
  let have = 0
  let stopped = false
  plan[Fetch.faults] =
    plan[Fetch.unsent] =
    plan[Fetch.bytesIn] =
    plan[Fetch.bytesOut] =
    plan[Fetch.contended] =
      0

  const ask = (link: Link, count: number): boolean => {
    if (count > MOST_AT_ONCE) return false
    const asked: Array<number> = []
    for (let at = 0; at < count * EVENT_WORDS; at += EVENT_WORDS) {
      const page = Math.floor((ring[at + 2]! - address) / pageSize)
      if (ring[at] !== Event.PageFault || page < 0 || page >= pages) return false
      if (test(requested, page) || test(received, page) || log.has(0, page)) return false
      if (!asked.includes(page)) asked.push(page)
    }
    const length = REQUEST_HEAD + WORD * asked.length
    const at = buffer.length - REQUEST_ROOM
    buffer[at] = plan[Fetch.command]!
    putHalf(buffer, at + 1, asked.length)
    for (const [i, page] of asked.entries()) putWord(buffer, at + REQUEST_HEAD + WORD * i, page)
    const sent = link.write(buffer, at, length)
    if (sent <= 0) return false
    plan[Fetch.bytesOut]! += sent
    if (sent < length) {
      plan[Fetch.unsent] = length - sent
      buffer.copyWithin(buffer.length - (length - sent), at + sent, at + length)
      stopped = true
    }
    for (const page of asked) log.add(0, page, nanos(), 0)
    return true
  }

  const takeFaults = (): boolean => {
    const count = channel.drain()
    if (count <= 0) {
      stopped = count < 0
      return false
    }
    if (plan[Fetch.asks] === 1 && ask(link, count)) return true
    plan[Fetch.faults] = count
    stopped = true
    return false
  }

  /** The page and its record's length, of a word that begins an answer. */
  const answerIn = (
    word: number
  ): { readonly page: number; readonly fill: boolean; readonly length: number } | undefined => {
    const page = Math.floor(word / pageSize)
    const flags = word % pageSize
    const fill = flags === plan[Fetch.fillFlags]
    if (!fill && flags !== plan[Fetch.pageFlags] || page >= pages) return undefined
    if (test(received, page) || log.has(1, page) || !test(requested, page) && !log.has(0, page)) return undefined
    return { page, fill, length: WORD + (fill ? 1 : pageSize) }
  }

  const install = (page: number, at: number, fill: boolean): boolean => {
    const to = address + page * pageSize
    if (fill && buffer[at] === 0) return channel.zeropage(to, pageSize) === pageSize
    const bytes = fill ? new Uint8Array(pageSize).fill(buffer[at]!) : buffer
    return channel.copy(to, bytes, fill ? 0 : at, pageSize) === pageSize
  }

  const takeAnswers = (): boolean => {
    const n = link.read(buffer, readAt + have, readMost - have)
    if (n <= 0) {
      stopped = n === 0
      return false
    }
    have += n
    let at = readAt
    const end = readAt + have
    while (log.hasRoom(MOST_AT_ONCE + 1) && end - at > WORD) {
      const answer = answerIn(getWord(buffer, at))
      if (answer === undefined || end - at < answer.length || !install(answer.page, at + WORD, answer.fill)) break
      log.add(1, answer.page, nanos(), answer.fill ? 1 : 0)
      at += answer.length
    }
    plan[Fetch.bytesIn]! += at - readAt
    buffer.copyWithin(readAt, at, end)
    have = end - at
    const answer = have >= WORD ? answerIn(getWord(buffer, readAt)) : undefined
    if (have >= WORD && (answer === undefined || have >= answer.length)) stopped = true
    return at > readAt
  }

  while (log.hasRoom(2 * MOST_AT_ONCE)) {
    const asked = takeFaults()
    if (stopped) break
    const placed = !asked && takeAnswers()
    if (stopped || !placed) break
  }
  plan[Fetch.unhandled] = have
  plan[Fetch.logged] = log.count
  return log.count
}
