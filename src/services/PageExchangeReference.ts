/**
 * The two halves of an exchange of pages in plain TypeScript, with one look instead of a wait: the reference for the
 * addon's `answerRequests` and `fetchPages`, and what doubles run on. The same plans, and the same results.
 *
 * Hot path: no Effect per page.
 */
import type { SourceBlock } from "./GuestMemory.ts"
import { AGAIN, type Link } from "./Link.ts"
import { Answer, Fetch, LOG_WORDS, Logged, REQUEST_ROOM } from "./PageExchange.ts"
import { Event, EVENT_WORDS, type FaultChannel } from "./Userfaultfd.ts"

const MOST_AT_ONCE = 16
/** What is pushed at once: bytes, and pages, for those of one byte take hardly any room. */
const CHUNK = 32 * 1024
const MOST_PUSHED = 128
/** Looks of one call. The addon's calls end by time. */
const MOST_LOOKS = 256
/** What is installed at once: bytes, and pages of zeros. */
const MOST_BYTES = 65536
const MOST_ZEROS = 256
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
  word(entry: number, index: number): number {
    return this.#plan[this.#fixed + entry * LOG_WORDS + index]!
  }
  /** How many of `count` pages from `first` on are in no entry, up to the first that is. `runOf`: an entry's pages. */
  without(first: number, count: number, runOf: (entry: number) => readonly [from: number, pages: number]): number {
    let most = count
    for (let i = 0; i < this.count; i++) {
      const [from, pages] = runOf(i)
      if (from + pages > first && from < first + most) most = Math.max(0, from - first)
    }
    return most
  }
}

/** `answer` of a source's block, see {@link Answer}. */
export const answerOver =
  (gather: NonNullable<SourceBlock["gather"]>): NonNullable<SourceBlock["answer"]> => (link, plan, dirty, input, output) => {
  const log = new Log(plan, Answer.words)
  const pages = plan[Answer.pages]!
  const pageSize = plan[Answer.pageSize]!
  const range = new Float64Array(4)
  let cursor = plan[Answer.cursor]!
  let have = 0
  let bytesIn = 0
  plan[Answer.pendingAt] = plan[Answer.pendingEnd] = plan[Answer.contended] = plan[Answer.full] = 0
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
    if (asked.length > 0 && cursor < pages) cursor = asked.at(-1)!
    return true
  }

  const push = (): boolean => {
    if (cursor >= pages || plan[Answer.pendingEnd]! > 0) return false
    const runs: Array<[first: number, fills: number, bytes: number, pages: number]> = []
    let end = 0
    let page = cursor
    let looked = 0
    while (page < pages && looked < MOST_PUSHED && end < CHUNK && runs.length < MOST_AT_ONCE) {
      let count = 0
      while (count < MOST_PUSHED - looked && page + count < pages && test(dirty, page + count)) count++
      count = unlogged(page, count)
      if (count === 0) {
        page++
        continue
      }
      const run: (typeof runs)[number] = [page, 0, 0, 0]
      while (run[3] < count && end < CHUNK && end + WORD + pageSize <= output.length) {
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
  let have = plan[Fetch.have]!
  let stopped = false
  plan[Fetch.faults] =
    plan[Fetch.unsent] =
    plan[Fetch.bytesIn] =
    plan[Fetch.bytesOut] =
    plan[Fetch.contended] =
      0

  const pagesOf = (entry: number) => log.word(entry, 0) >= Logged.run ? log.word(entry, 3) : 1
  const unlogged = (page: number, count: number) =>
    log.without(page, count, (i) => [log.word(i, 1), pagesOf(i)])
  const isPlaced = (page: number) =>
    log.without(page, 1, (i) => [log.word(i, 1), log.word(i, 0) === Logged.asked ? 0 : pagesOf(i)]) === 0

  const ask = (link: Link, count: number): boolean => {
    if (count > MOST_AT_ONCE) return false
    const asked: Array<number> = []
    for (let at = 0; at < count * EVENT_WORDS; at += EVENT_WORDS) {
      const page = Math.floor((ring[at + 2]! - address) / pageSize)
      if (ring[at] !== Event.PageFault || page < 0 || page >= pages) return false
      if (test(requested, page) || test(received, page) || unlogged(page, 1) === 0) return false
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
    for (const page of asked) log.add(Logged.asked, page, nanos(), 0)
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

  interface Found {
    readonly page: number
    readonly fill: boolean
    readonly length: number
  }
  /** What a word begins: the record of a page that has not come. */
  const found = (word: number): Found | undefined => {
    const page = Math.floor(word / pageSize)
    const flags = word % pageSize
    const fill = flags === plan[Fetch.fillFlags]
    if (!fill && flags !== plan[Fetch.pageFlags] || page >= pages) return undefined
    return test(received, page) || isPlaced(page) ? undefined : { page, fill, length: WORD + (fill ? 1 : pageSize) }
  }

  const install = ({ fill, length, page }: Found, at: number, count: number): number => {
    const repeated = fill ? new Uint8Array(pageSize).fill(buffer[at]!) : undefined
    for (let i = 0; i < count; i++) {
      const to = address + (page + i) * pageSize
      const n = fill && buffer[at] === 0
        ? channel.zeropage(to, pageSize)
        : channel.copy(to, repeated ?? buffer, fill ? 0 : at + i * length, pageSize)
      if (n !== pageSize) return i
    }
    return count
  }

  /** Bytes of the records at `at` that it has dealt with. */
  const place = (at: number, end: number): number => {
    if (end - at < WORD + 1) return 0
    const word = getWord(buffer, at)
    const record = found(word)
    if (record === undefined || end - at < record.length) return 0
    const { fill, length, page } = record
    if (test(requested, page) || unlogged(page, 1) === 0) {
      if (install(record, at + WORD, 1) === 0) return 0
      log.add(Logged.placed, page, nanos(), fill ? 1 : 0)
      return length
    }
    const byte = buffer[at + WORD]!
    const zeros = fill && byte === 0 ? MOST_ZEROS : Math.floor(MOST_BYTES / pageSize)
    const most = Math.min(zeros, pages - page, Math.floor((end - at) / length))
    let count = 1
    for (; count < most; count++) {
      const next = at + count * length
      if (getWord(buffer, next) !== word + count * pageSize || fill && buffer[next + WORD] !== byte) break
      if (test(requested, page + count) || test(received, page + count)) break
    }
    const placed = install(record, at + WORD, unlogged(page, count))
    if (placed > 0) log.add(fill ? Logged.fillRun : Logged.run, page, nanos(), placed)
    return placed * length
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
    while (log.hasRoom(MOST_AT_ONCE + 1)) {
      const used = place(at, end)
      if (used === 0) break
      at += used
    }
    plan[Fetch.bytesIn]! += at - readAt
    buffer.copyWithin(readAt, at, end)
    have = end - at
    const record = have >= WORD ? found(getWord(buffer, readAt)) : undefined
    if (have >= WORD && (record === undefined || have >= record.length)) stopped = true
    return at > readAt
  }

  for (let looks = 0; looks < MOST_LOOKS && log.hasRoom(2 * MOST_AT_ONCE); looks++) {
    const asked = takeFaults()
    if (stopped) break
    const placed = !asked && takeAnswers()
    if (stopped || !placed) break
  }
  plan[Fetch.unhandled] = have
  plan[Fetch.logged] = log.count
  return log.count
}
