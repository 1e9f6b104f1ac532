/**
 * The receiving side under a malicious source: the loader of device state, then the daemon's data path over a userfaultfd
 * that puts things off, reports faults and removals. Whatever comes, it ends: with every page in place and right, or with
 * a failure that says why; it installs nothing that the stream did not say and asks for no page twice.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as DaemonPages from "../../src/actors/DaemonPages.ts"
import type { LoadedBlock, Vcpu } from "../../src/guests/Vcpu.ts"
import { loadState } from "../../src/LoadState.ts"
import { RunningGuest } from "../../src/RunningGuest.ts"
import * as DaemonCounters from "../../src/services/DaemonCounters.ts"
import { fetchOver } from "../../src/services/FetchReference.ts"
import {
  Event,
  EVENT_WORDS,
  type FaultChannel,
  type RegisteredBlock,
  Userfaultfd
} from "../../src/services/Userfaultfd.ts"
import { type Finding, inUse, same, since } from "./Finding.ts"
import { mutated, pieces } from "./Mutation.ts"
import type { Random } from "./Random.ts"
import * as Reference from "./Reference.ts"
import { ScriptedLink } from "./ScriptedLink.ts"
import { blocks, small, SMALL_PAGE } from "./Streams.ts"

const EAGAIN = -11
const EEXIST = -17
/** The daemon's read and its decoder; its backlog with room for two messages; the loader's read and its decoder. */
const WINDOW = 3 * 128 * 1024 + (532_480 + 2 * 64 * 1024) + 64 * 1024 + 32 * 1024
/** Turns without an end after which it does not end. */
const MANY_TURNS = 10_000

const totalPages = blocks.reduce((sum, { length }) => sum + length / SMALL_PAGE, 0)

/** Blocks lie apart, so that an address out of one is in none. */
const registered: ReadonlyArray<RegisteredBlock> = blocks.map(({ idstr, length }, i) => ({
  idstr,
  length,
  address: 0x7f00_0000_0000 + i * 2 ** 20,
  hostPageSize: SMALL_PAGE,
  mode: "copy"
}))

/** Memory and its userfaultfd: what is installed is kept, events come when the script says. */
class ScriptedMemory {
  readonly pages = new Map<number, Uint8Array>()
  readonly removed = new Set<number>()
  readonly #random: Random
  readonly #events: Array<readonly [event: number, a: number, b: number]> = []
  readonly #ring = new Float64Array(64 * EVENT_WORDS)
  #burst: (count: number) => void = () => {}
  readonly channel: FaultChannel

  constructor(random: Random) {
    this.#random = random
    this.channel = {
      ring: this.#ring,
      attach: (onBurst) => {
        this.#burst = onBurst
      },
      drain: () => this.#drain(),
      copy: (address, source, offset, length) => this.#place(address, source.slice(offset, offset + length)),
      copyRun: (address, source, offset, stride, size, pages) => {
        for (let i = 0; i < pages; i++) {
          const at = offset + i * stride
          const n = this.#place(address + i * size, source.slice(at, at + size))
          if (n < 0 && n !== EEXIST) return i
        }
        return pages
      },
      zeropage: (address, length) => {
        for (let at = 0; at < length; at += SMALL_PAGE) {
          const n = this.#place(address + at, new Uint8Array(SMALL_PAGE))
          if (n < 0) return at > 0 ? at : n
        }
        return length
      },
      continueRange: () => EEXIST,
      wake: () => 0,
      unregister: () => {},
      staged: () => {
        throw new Error("no block is staged")
      },
      close: () => {}
    }
  }

  #drain(): number {
    const some = this.#events.splice(0, 64)
    some.forEach(([event, a, b], i) => this.#ring.set([event, a, b, 0], i * EVENT_WORDS))
    return some.length
  }

  #place(address: number, bytes: Uint8Array): number {
    const block = registered.find((each) => address >= each.address && address < each.address + each.length)
    same(block !== undefined && (address - block.address) % SMALL_PAGE === 0, true, "a page out of every block")
    same(bytes.length, SMALL_PAGE, "another length than a page's")
    // As the kernel: while an event is unread nothing is installed.
    if (this.#events.length > 0 || this.#random.oneIn(30)) return EAGAIN
    if (this.pages.has(address)) return EEXIST
    this.pages.set(address, bytes)
    return SMALL_PAGE
  }

  /** A thread touches a page, or gives some back. */
  happen(): void {
    const block = this.#random.pick(registered)
    const page = this.#random.below(block.length / SMALL_PAGE)
    const address = block.address + page * SMALL_PAGE
    if (this.#random.oneIn(5)) {
      const count = 1 + this.#random.below(block.length / SMALL_PAGE - page)
      for (let i = 0; i < count; i++) {
        this.pages.delete(address + i * SMALL_PAGE)
        this.removed.add(address + i * SMALL_PAGE)
      }
      this.#events.push([Event.Remove, address, address + count * SMALL_PAGE])
    } else if (!this.pages.has(address)) this.#events.push([Event.PageFault, 0, address])
    if (this.#random.oneIn(3)) return
    const n = this.#drain()
    if (n > 0) this.#burst(n)
  }
}

const owned: ReadonlyArray<LoadedBlock> = blocks.map((block) => ({
  ...block,
  maximum: block.length,
  hostPageSize: SMALL_PAGE,
  memory: { _tag: "Shared", buffer: new SharedArrayBuffer(0) }
}))

// SAFETY: the loader asks a vCPU for its blocks, and to grow one: with a maximum of its length there is nothing to grow.
const vcpu = { blocks: () => owned } as Vcpu

/** The loader up to the switchover: bytes left for the daemon, or why there is no switchover. */
const load = (link: ScriptedLink) =>
  Effect.runSyncExit(
    loadState({
      link,
      guest: new RunningGuest(vcpu, "destination", () => 0),
      targetPageSize: SMALL_PAGE,
      onFirstByte: Effect.void
    }).pipe(
      Effect.provideService(Userfaultfd, {
        available: Effect.void,
        register: () => Effect.succeed({ blocks: registered, descriptor: undefined, memfds: [], release: () => {} })
      }),
      Effect.scoped
    )
  )

/** What the reference says of the savevm stream as a loader: it must announce the blocks and come to its EOF. */
const loads = (bytes: Uint8Array): number | undefined => {
  const { consumed, messages, verdict } = Reference.savevm(bytes, blocks, SMALL_PAGE, 64 * 2 ** 20)
  const whole = verdict === "end" && messages.at(-1)?.kind === "eof" && messages.some(({ kind }) => kind === "sizes")
  return whole ? consumed : undefined
}

/** Runs the daemon's data path to its end. */
const serve = (remainder: Uint8Array, link: ScriptedLink, memory: ScriptedMemory, random: Random) => {
  const counters = new DaemonCounters.DaemonCounters(new ArrayBuffer(DaemonCounters.BYTES))
  const { channel } = memory
  const uffd = random.oneIn(2) ? channel : { ...channel, fetch: fetchOver(channel) }
  const pages = Effect.runSync(DaemonPages.make({
    uffd,
    link,
    blocks: registered,
    targetPageSize: SMALL_PAGE,
    counters,
    trigger: false,
    wake: () => {}
  }))
  const ended = () => pages.failure() !== undefined || pages.endOfStream()
  const busy = random.oneIn(2)
  pages.begin(remainder)
  for (let turns = 0; !ended(); turns++) {
    same(turns < MANY_TURNS, true, "the daemon does not end")
    if (busy && random.oneIn(3)) memory.happen()
    if (!link.turn() || random.oneIn(8)) pages.retry()
  }
  // What the kernel put off is tried again, by a timer.
  for (let turns = 0; turns < 100 && pages.failure() === undefined && !pages.complete(); turns++) pages.retry()
  return { counters, pages }
}

export const fuzz = (random: Random): Finding => {
  const opening = random.oneIn(3) ? mutated(small.savevm(random), random) : small.savevm(random)
  const stream = mutated(small.pageStream(random), random)
  const all = Buffer.concat([opening, stream])
  const link = new ScriptedLink(
    pieces(all, random),
    random,
    random.oneIn(2) ? "end" : "reset",
    random.oneIn(4) ? random.below(64) : Infinity,
    // The loader waits for readiness, which a synchronous run cannot: it finds every byte there.
    false
  )
  const before = inUse()
  const loaded = load(link)
  let allocated = since(before)
  const expected = loads(all)
  same(Exit.isSuccess(loaded), expected !== undefined, "the loader and the reference differ")
  if (Exit.isFailure(loaded)) {
    const error = loaded.cause.reasons.find((reason) => reason._tag === "Fail")?.error
    if (error === undefined) throw new Error(`the loader died: ${JSON.stringify(loaded.cause.reasons)}`)
    return { outcome: `receive: ${error._tag} ${error.detail}`, allocated, window: WINDOW }
  }
  const memory = new ScriptedMemory(random)
  const between = inUse()
  const { counters, pages } = serve(loaded.value.remainder, link, memory, random)
  const serving = since(between)
  allocated = { buffers: allocated.buffers + serving.buffers, heap: allocated.heap + serving.heap }

  const parsed = Reference.pageStream(all.subarray(expected), blocks, SMALL_PAGE)
  const said = new Map<number, Uint8Array>()
  for (const record of parsed.messages) {
    if (record.kind !== "page" && record.kind !== "fill") continue
    const address = registered.find(({ idstr }) => idstr === record.idstr)!.address + record.page * SMALL_PAGE
    if (!said.has(address)) {
      said.set(address, record.kind === "page" ? record.data : new Uint8Array(SMALL_PAGE).fill(record.byte))
    }
  }
  const zeros = Buffer.alloc(SMALL_PAGE)
  for (const [address, bytes] of memory.pages) {
    const right = memory.removed.has(address) ? zeros : said.get(address)
    same(right !== undefined && Buffer.compare(bytes, right) === 0, true, "a page that the stream did not say")
  }
  // What a source sends behind its EOS is not read any more.
  const whole = parsed.messages.at(-1)?.kind === "eos"
  same(pages.endOfStream(), whole, "another end of the page stream than the reference's")
  const every = registered.every(({ address, length }) => {
    for (let at = address; at < address + length; at += SMALL_PAGE) {
      if (!said.has(at) && !memory.removed.has(at)) return false
    }
    return true
  })
  if (whole) same(pages.complete(), every, "complete with pages missing, or incomplete with none")
  const counted = counters.get("onDemand") + counters.get("background") + counters.get("removed")
  same(counted <= totalPages, true, "more pages counted than there are")
  if (pages.complete()) same(counted, totalPages, "other pages counted than arrived")

  // A part of the last message may not have been taken.
  const asked = Reference.requests(Buffer.concat(link.taken), blocks, SMALL_PAGE)
  same(asked.verdict !== "malformed", true, "a request that no source takes")
  const once = new Set<string>()
  for (const { cmd, idstr, pages: list } of asked.messages) {
    for (const page of cmd === 5 ? [] : list) {
      same(once.has(`${idstr} ${page}`), false, "a page asked for twice")
      once.add(`${idstr} ${page}`)
    }
  }
  const why = pages.failure()?.detail
  return { outcome: `serve: ${why ?? (pages.complete() ? "complete" : "incomplete")}`, allocated, window: WINDOW }
}
