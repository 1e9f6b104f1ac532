/**
 * The addon's two halves of an exchange of pages under hostile bytes, over a real socket and real memory: whatever comes,
 * each does what its reference does with the same bytes, which no memory-safe code can do wrongly in the same way.
 */
import type { Descriptor } from "userfaultfd-napi"
import * as Binding from "../../src/native/Binding.ts"
import { answerOver } from "../../src/services/AnswerReference.ts"
import { fetchOver } from "../../src/services/FetchReference.ts"
import { fromBytes } from "../../src/services/GuestMemory.ts"
import { AGAIN, type Link } from "../../src/services/Link.ts"
import { Answer, Fetch, LOG_WORDS } from "../../src/services/PageExchange.ts"
import { type Finding, inUse, same, since } from "./Finding.ts"
import { mutated } from "./Mutation.ts"
import type { Random } from "./Random.ts"

const P = 4096
const PAGES = 16
const COMMAND = 2
const PAGE_FLAGS = 0x28
const FILL_FLAGS = 0x22
const EEXIST = -17
/** The field of a log's entry that is not compared: when something happened. */
const NANOS = { answer: -1, fetch: 2 }
/** Nanoseconds after which a call of the addon comes back whatever there is to do: the reference counts looks instead. */
const TURN = 8_000_000n
const addon = Binding.require()
const { constants } = addon

/** A link over bytes, which takes whatever is written. */
class Bytes implements Link {
  readonly written: Array<Uint8Array> = []
  readonly descriptor = undefined
  readonly peer = "bytes"
  readonly unsentIsUnread = true
  #rest: Uint8Array
  constructor(bytes: Uint8Array) {
    this.#rest = bytes
  }
  read(into: Uint8Array, offset: number, length: number): number {
    if (this.#rest.length === 0) return AGAIN
    const n = Math.min(length, this.#rest.length)
    into.set(this.#rest.subarray(0, n), offset)
    this.#rest = this.#rest.subarray(n)
    return n
  }
  write(from: Uint8Array, offset: number, length: number): number {
    this.written.push(from.slice(offset, offset + length))
    return length
  }
  attach(): void {}
  watch(): void {}
  unsent(): number {
    return 0
  }
  close(): void {}
  release(): void {}
}

const bits = (random: Random): Uint8Array =>
  Uint8Array.from({ length: PAGES / 8 }, () => random.below(256) | random.below(256))
const anyPage = (random: Random): number =>
  random.oneIn(40) ? random.pick([PAGES, 2 ** 32, 2 ** 53]) : random.below(PAGES)

const word = (into: Array<number>, value: bigint) => {
  for (let shift = 56n; shift >= 0n; shift -= 8n) into.push(Number((value >> shift) & 0xffn))
}
const requests = (random: Random): Uint8Array => {
  const out: Array<number> = []
  for (let n = 1 + random.below(6); n > 0; n--) {
    const pages = Array.from(
      { length: random.oneIn(20) ? random.below(20) : 1 + random.below(3) },
      () => anyPage(random)
    )
    out.push(random.oneIn(30) ? random.below(7) : COMMAND, 0, 0, 0, pages.length)
    for (const page of pages) word(out, BigInt(page))
  }
  return Uint8Array.from(out)
}
const answers = (random: Random): Uint8Array => {
  const out: Array<number> = []
  let page = anyPage(random)
  for (let n = 1 + random.below(5); n > 0; n--) {
    const fill = random.oneIn(2)
    // Neighbours are installed together.
    page = random.oneIn(2) ? page + 1 : anyPage(random)
    word(
      out,
      BigInt(page) * BigInt(P) + BigInt(random.oneIn(30) ? random.below(P) : fill ? FILL_FLAGS : PAGE_FLAGS)
    )
    for (let i = fill ? 1 : P; i > 0; i--) out.push(random.oneIn(3) && fill ? 0 : i & 0xff)
  }
  return Uint8Array.from(out)
}

const sameBytes = (ours: Uint8Array, reference: Uint8Array, what: string) =>
  same(Buffer.compare(ours, reference), 0, `other ${what} than the reference's`)

/** Of both plans what counts: how it ended, and the log but for its times. */
const samePlans = (ours: Float64Array, reference: Float64Array, words: number, logged: number, nanos: number) => {
  const end = words + LOG_WORDS * reference[logged]!
  for (let i = 0; i < end; i++) {
    if (i < words || (i - words) % LOG_WORDS !== nanos) same(ours[i], reference[i], `word ${i} of the plan`)
  }
}

/**
 * Runs `act` with one end of a socket whose other end has sent the bytes; what came back, or `undefined` when somebody else
 * had the CPU for so long that the call has ended by its time.
 */
const overSocket = (bytes: Uint8Array, act: (end: Descriptor) => void): Uint8Array | undefined => {
  const ends = addon.socketpair(constants.SOCK_STREAM)
  try {
    for (const end of ends) {
      addon.setNonBlocking(end, true)
      addon.setSocketOptions(end, { sendBuffer: 512 * 1024 })
    }
    same(addon.write(ends[1], bytes, 0, bytes.length), bytes.length, "bytes taken by the socket")
    const before = process.hrtime.bigint()
    act(ends[0])
    if (process.hrtime.bigint() - before >= TURN) return undefined
    const back = new Uint8Array(256 * 1024)
    const n = addon.read(ends[1], back, 0, back.length)
    return back.subarray(0, Math.max(0, n))
  } finally {
    for (const end of ends) end.close()
  }
}

const content = Uint8Array.from(
  { length: PAGES * P },
  (_, at) => Math.floor(at / P) % 4 === 0 ? 7 : at * 31 + (at >> 12)
)

const fuzzAnswers = (random: Random): Finding => {
  const bytes = mutated(requests(random), random)
  const dirty = bits(random)
  const plan = new Float64Array(Answer.words + LOG_WORDS * random.pick([16, 20, 64]))
  const cursor = random.oneIn(2) ? PAGES : random.below(PAGES)
  plan.set([PAGES, P, PAGE_FLAGS, FILL_FLAGS, COMMAND, 0, cursor, random.oneIn(8) ? 0 : 1])
  const expected = plan.slice()
  const input = new Uint8Array(256)
  const output = new Uint8Array(random.pick([2, 17]) * (P + 8))
  const before = inUse()
  const region = addon.Region.anonymous(PAGES * P)
  region.write(0, content, 0, content.length)
  const sent = overSocket(
    bytes,
    (end) => same(addon.answerRequests(end, region, plan, dirty, input, output) >= 0, true, "an error")
  )
  const allocated = since(before)
  region.close()
  if (sent === undefined) return { outcome: "answers: ended by time", allocated, window: 512 * 1024 }

  const link = new Bytes(bytes)
  const { gather } = fromBytes("ram", content)
  const left = new Uint8Array(input.length)
  answerOver(gather!)(link, expected, dirty, left, new Uint8Array(output.length))
  samePlans(plan, expected, Answer.words, Answer.logged, NANOS.answer)
  sameBytes(sent, Buffer.concat(link.written), "answers")
  sameBytes(input.subarray(0, plan[Answer.unhandled]), left.subarray(0, expected[Answer.unhandled]), "bytes left")
  const outcome = `answers: ${plan[Answer.logged]! > 0 ? "some" : "none"}, ${
    plan[Answer.unhandled]! > 0 ? "bytes left" : "nothing left"
  }`
  return { outcome, allocated, window: 512 * 1024 }
}

const fuzzFetches = (random: Random): Finding => {
  const bytes = mutated(answers(random), random)
  const requested = bits(random)
  const received = Uint8Array.from(bits(random), (byte, i) => byte & requested[i]! & random.below(256))
  const plan = new Float64Array(Fetch.words + LOG_WORDS * random.pick([32, 36, 64]))
  const readMost = random.pick([P + 8, 20_000])
  const buffer = new Uint8Array(readMost + 1000)
  const before = inUse()
  const region = addon.Region.anonymous(PAGES * P)
  const { descriptor: uffd } = addon.open({ userModeOnly: true })
  addon.register(uffd, region.address, PAGES * P, constants.MODE_MISSING)
  // Some of the bytes are there already.
  const have = random.oneIn(3) ? random.below(Math.min(bytes.length, readMost - (P + 8)) + 1) : 0
  buffer.set(bytes.subarray(0, have), 100)
  plan.set([region.address, PAGES, P, PAGE_FLAGS, FILL_FLAGS, COMMAND, 0, 100, readMost, 1, have])
  const expected = plan.slice()
  const ring = new Float64Array(16 * 4)
  const sent = overSocket(bytes.subarray(have), (end) => {
    same(addon.fetchPages(uffd, end, plan, requested, received, buffer, ring) >= 0, true, "an error")
  })
  const allocated = since(before)
  if (sent === undefined) {
    uffd.close()
    region.close()
    return { outcome: "fetches: ended by time", allocated, window: 512 * 1024 }
  }

  const placed = new Map<number, Uint8Array>()
  const place = (address: number, page: Uint8Array): number => {
    if (placed.has(address)) return EEXIST
    placed.set(address, page)
    return P
  }
  const link = new Bytes(bytes.subarray(have))
  const left = new Uint8Array(buffer.length)
  left.set(bytes.subarray(0, have), 100)
  fetchOver({
    ring: new Float64Array(ring.length),
    drain: () => 0,
    copy: (address, source, offset, length) => place(address, source.slice(offset, offset + length)),
    zeropage: (address, length) => place(address, new Uint8Array(length))
  })(link, expected, requested, received, left)
  samePlans(plan, expected, Fetch.words, Fetch.logged, NANOS.fetch)
  same(sent.length, 0, "requests without a fault")
  sameBytes(
    buffer.subarray(100, 100 + plan[Fetch.unhandled]!),
    left.subarray(100, 100 + expected[Fetch.unhandled]!),
    "bytes left"
  )
  // SAFETY: only pages that are there are read; another one would be waited for.
  const page = new Uint8Array(P)
  for (const [address, right] of placed) {
    same(region.read(address - region.address, page, 0, P), P, "bytes read")
    sameBytes(page, right, "page")
  }
  uffd.close()
  region.close()
  const outcome = `fetches: ${placed.size > 0 ? "some" : "none"}, ${
    plan[Fetch.unhandled]! > 0 ? "bytes left" : "nothing left"
  }`
  return { outcome, allocated, window: 512 * 1024 }
}

export const fuzz = (random: Random): Finding => random.oneIn(2) ? fuzzAnswers(random) : fuzzFetches(random)
