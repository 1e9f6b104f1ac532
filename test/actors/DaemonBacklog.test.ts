/**
 * A source that does not read: what the daemon has to say to it is bounded, faults are still read and noted, and all of
 * them are forwarded once it reads again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { Event, EVENT_WORDS, type FaultChannel } from "../../src/services/Userfaultfd.ts"
import { PAGE } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

/** Events of one burst. */
const BURST = 64

/** A userfaultfd whose events the test makes up, a burst at a time; every page is taken. */
const scripted = () => {
  let onBurst: (count: number) => void = () => {}
  const ring = new Float64Array(BURST * EVENT_WORDS)
  const zeroed: Array<number> = []
  const channel: FaultChannel = {
    ring,
    attach: (callback) => {
      onBurst = callback
    },
    drain: () => 0,
    copy: (_address, _source, _offset, length) => length,
    copyRun: (_address, _source, _offset, _stride, _pageSize, pages) => pages,
    zeropage: (address, length) => {
      zeroed.push(address)
      return length
    },
    continueRange: (_address, length) => length,
    wake: () => 0,
    unregister: () => {},
    staged: () => ({ write: () => {}, clear: () => {} }),
    close: () => {}
  }
  /** Leaves faults in the ring, as a read does. */
  const put = (addresses: ReadonlyArray<number>) => {
    for (const [i, address] of addresses.entries()) ring.set([Event.PageFault, 0, address, 0], i * EVENT_WORDS)
  }
  return {
    channel,
    zeroed,
    put,
    fault: (addresses: ReadonlyArray<number>) => {
      put(addresses)
      onBurst(addresses.length)
    },
    remove: (start: number, end: number) => {
      ring.set([Event.Remove, start, end, 0])
      onBurst(1)
    }
  }
}

const PAGES = 120_000
/** Faults, of 13 bytes each, with which the backlog is above its mark. */
const ABOVE_MARK = 50_000
/** Removals, told one by one in 17 bytes each, that the room above the mark does not hold. */
const GIVEN_BACK = 10_000

const flooded = Effect.fnUntraced(function*(capacity: number) {
  const uffd = scripted()
  const rig = yield* DestinationRig.make({
    blocks: { ram: PAGES * PAGE },
    link: { capacity },
    wrap: () => uffd.channel
  })
  const base = rig.memory.blocks[0]!.address
  const daemon = yield* rig.run
  yield* until("INIT", () => rig.heard.init > 0)
  rig.sourceReading(false)
  // One fault a burst: 13 bytes a page, the dearest way to ask.
  for (let page = 0; page < PAGES; page++) uffd.fault([base + page * PAGE])
  yield* settle
  return { base, daemon, rig, uffd }
})

type Rig = Effect.Success<ReturnType<typeof DestinationRig.make>>

const asked = (rig: Rig) => rig.requests.flatMap(([cmd, , pages]) => cmd === 5 ? [] : pages)

/** Waits until so many pages were asked for. Looks at the requests once each, however many there are. */
const untilAsked = (rig: Rig, pages: number) => {
  let seen = 0
  let count = 0
  return until(`${pages} requests`, () => {
    for (; seen < rig.requests.length; seen++) if (rig.requests[seen]![0] !== 5) count += rig.requests[seen]![2].length
    return count >= pages
  })
}

describe("a source that does not read", () => {
  for (const capacity of [64 * 1024, 4 * 1024 * 1024]) {
    it.effect(`B19: gets every request when it reads again, none twice, with a link that holds ${capacity} bytes`, () =>
      Effect.gen(function*() {
        const { rig } = yield* flooded(capacity)
        assert.strictEqual(rig.requests.length, 0)
        rig.sourceReading(true)
        yield* untilAsked(rig, PAGES)
        yield* settle
        const pages = asked(rig)
        assert.strictEqual(pages.length, PAGES)
        assert.strictEqual(new Set(pages).size, PAGES)
        assert.strictEqual(rig.heard.malformed, "")
      }))
  }

  it.effect("B19: is owed no more than the mark and one message, whatever the guest does", () =>
    Effect.gen(function*() {
      const { rig } = yield* flooded(64 * 1024)
      // What is owed comes out in one go, before anything noted is put behind it.
      const buffer = new Uint8Array(64 * 1024)
      let owed = 0
      const noted = rig.counters.get("outstanding")
      assert.strictEqual(noted, PAGES)
      for (let n = rig.source.read(buffer, 0, buffer.length); n > 0; n = rig.source.read(buffer, 0, buffer.length)) {
        owed += n
      }
      assert.isAtMost(owed, 64 * 1024)
      assert.isBelow(rig.counters.get("bytesSent"), 64 * 1024 + 2)
    }))

  it.effect("B19: a big link that takes all at once does not leave noted faults behind", () =>
    Effect.gen(function*() {
      const { rig } = yield* flooded(700_000)
      rig.sourceReading(true)
      yield* untilAsked(rig, PAGES)
      assert.strictEqual(new Set(asked(rig)).size, PAGES)
    }))

  it.effect("B19: that is owed little gets requests in the order of the faults, whatever the link has not taken", () =>
    Effect.gen(function*() {
      const uffd = scripted()
      const rig = yield* DestinationRig.make({
        blocks: { ram: 64 * PAGE },
        link: { capacity: 32 },
        wrap: () => uffd.channel
      })
      yield* rig.run
      yield* until("INIT", () => rig.heard.init > 0)
      rig.sourceReading(false)
      const pages = Array.from({ length: 20 }, (_, i) => 63 - 3 * i)
      for (const page of pages) uffd.fault([rig.memory.blocks[0]!.address + page * PAGE])
      yield* settle
      rig.sourceReading(true)
      yield* untilAsked(rig, pages.length)
      assert.deepStrictEqual(asked(rig), pages)
    }))

  it.effect("B13: a removal that could only be noted is told by page of its block", () =>
    Effect.gen(function*() {
      const uffd = scripted()
      const rig = yield* DestinationRig.make({
        blocks: { ram: ABOVE_MARK * PAGE, rom: GIVEN_BACK * 2 * PAGE },
        link: { capacity: 64 * 1024 },
        wrap: () => uffd.channel
      })
      const [ram, rom] = rig.memory.blocks.map(({ address }) => address) as [number, number]
      yield* rig.run
      yield* until("INIT", () => rig.heard.init > 0)
      rig.sourceReading(false)
      for (let page = 0; page < ABOVE_MARK; page++) uffd.fault([ram + page * PAGE])
      for (let page = 1; page < GIVEN_BACK * 2; page += 2) uffd.remove(rom + page * PAGE, rom + (page + 1) * PAGE)
      yield* settle
      rig.sourceReading(true)
      yield* untilAsked(rig, ABOVE_MARK)
      const removed = () => rig.requests.flatMap(([cmd, idstr, pages]) => cmd === 5 && idstr === "rom" ? pages : [])
      yield* until("the removals", () => removed().length === GIVEN_BACK)
      assert.deepStrictEqual(
        removed().toSorted((a, b) => a - b),
        Array.from({ length: GIVEN_BACK }, (_, i) => 2 * i + 1)
      )
      assert.strictEqual(rig.heard.malformed, "")
    }))

  it.effect("a noted fault on a page that is removed meanwhile gets zeros, and the source is told not to send it", () =>
    Effect.gen(function*() {
      const { base, rig, uffd } = yield* flooded(64 * 1024)
      const last = base + (PAGES - 1) * PAGE
      uffd.remove(last, last + PAGE)
      assert.deepStrictEqual(uffd.zeroed, [last])
      rig.sourceReading(true)
      yield* untilAsked(rig, PAGES - 1)
      yield* settle
      assert.isFalse(asked(rig).includes(PAGES - 1))
      // A source that sends only what is asked for waits for every page to be asked for or removed.
      assert.deepStrictEqual(rig.requests.filter(([cmd]) => cmd === 5), [[5, "ram", [PAGES - 1]]])
    }))

  it.effect("is asked in turns by a guest that faults without end: 33280 faults are read before any is asked for", () =>
    Effect.gen(function*() {
      const uffd = scripted()
      let drained = 0
      let drainedBefore = -1
      const rig: Rig = yield* DestinationRig.make({
        blocks: { ram: PAGES * PAGE },
        link: { capacity: 4 * 1024 * 1024 },
        wrap: () => ({
          ...uffd.channel,
          drain: () => {
            if (drained === 1000) return 0
            drained++
            uffd.put(faultsOf(drained))
            return BURST
          }
        }),
        wrapLink: (link) => ({
          ...link,
          write: (...given) => {
            if (drained > 0 && drainedBefore < 0) drainedBefore = drained
            return link.write(...given)
          }
        })
      })
      const faultsOf = (burst: number) =>
        Array.from({ length: BURST }, (_, i) => rig.memory.blocks[0]!.address + (burst * BURST + i) * PAGE)
      yield* rig.run
      yield* until("INIT", () => rig.heard.init > 0)
      uffd.fault(faultsOf(0))
      yield* settle
      assert.strictEqual(drainedBefore, 33280 / BURST - 1)
    }))

  it.effect("still hears EOC as the last thing when the guest quits", () =>
    Effect.gen(function*() {
      const { daemon, rig } = yield* flooded(64 * 1024)
      rig.tell(Pipe.quit("guest"))
      yield* until("QUIT", () => rig.told.length > 1)
      assert.strictEqual(rig.heard.eoc, 0)
      rig.sourceReading(true)
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.strictEqual(rig.heard.malformed, "")
    }))
})
