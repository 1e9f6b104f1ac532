/**
 * The destination's half of an exchange of pages in plain TypeScript, with looks instead of waits: the reference for the
 * addon's `fetchPages`, and what doubles run on. The same plans, and the same results.
 *
 * Hot path: no Effect per page.
 */
import { getWord, Log, MOST_AT_ONCE, putHalf, putWord, REQUEST_HEAD, test, WORD } from "./ExchangeWire.ts"
import type { Link } from "./Link.ts"
import { Fetch, Logged, REQUEST_ROOM } from "./PageExchange.ts"
import { Event, EVENT_WORDS, type FaultChannel } from "./Userfaultfd.ts"

/** What is installed at once: bytes, and pages of zeros. */
const MOST_BYTES = 65536
const MOST_ZEROS = 256
/** Looks of one call. The addon's calls end by time. */
const MOST_LOOKS = 256

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
  /** Whole pages that came with the last bytes; several: as many are read next as the addon reads apart from their words. */
  let whole = 0
  let dense = false
  plan[Fetch.faults] =
    plan[Fetch.unsent] =
    plan[Fetch.bytesIn] =
    plan[Fetch.bytesOut] =
    plan[Fetch.contended] =
      0

  const pagesOf = (entry: number) => log.word(entry, 0) >= Logged.run ? log.word(entry, 3) : 1
  const unlogged = (page: number, count: number) => log.without(page, count, (i) => [log.word(i, 1), pagesOf(i)])
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
      if (!fill) whole++
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
    if (!fill) whole += placed
    if (placed > 0) log.add(fill ? Logged.fillRun : Logged.run, page, nanos(), placed)
    return placed * length
  }

  const takeAnswers = (): boolean => {
    const slots = Math.min(MOST_AT_ONCE, Math.floor(MOST_BYTES / pageSize), Math.floor(readMost / (WORD + pageSize)))
    const most = dense && have === 0 ? slots * (WORD + pageSize) : readMost - have
    const n = link.read(buffer, readAt + have, most)
    if (n <= 0) {
      stopped = n === 0
      return false
    }
    whole = 0
    have += n
    let at = readAt
    const end = readAt + have
    while (log.hasRoom(MOST_AT_ONCE + 1)) {
      const used = place(at, end)
      if (used === 0) break
      at += used
    }
    plan[Fetch.bytesIn]! += at - readAt
    dense = whole > 1
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
