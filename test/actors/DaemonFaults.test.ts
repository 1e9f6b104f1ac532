/** Faults become requests, records become pages: the umem daemon's ordinary work, up to its end. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { COUNTED } from "../../src/services/PageStates.ts"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE, "vga.vram": 2 * PAGE }
const read = (rig: Effect.Success<ReturnType<typeof DestinationRig.make>>, idstr: string, page: number) =>
  Effect.forkScoped(rig.memory.read(idstr, page), { startImmediately: true })

describe("a page fault", () => {
  it.effect("of two threads on one page leads to one request, and the page lets both go on", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      const threads = [yield* read(rig, "pc.ram", 2), yield* read(rig, "pc.ram", 2)]
      yield* until("the request", () => rig.requests.length > 0)
      yield* settle
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", [2]]])
      assert.strictEqual(rig.memory.waiting(), 2)
      yield* TestClock.adjust(3)
      yield* rig.feed(rig.page("pc.ram", 2))
      for (const thread of threads) assert.deepStrictEqual(yield* Fiber.join(thread), pageOf("pc.ram", 2))
      yield* settle
      assert.strictEqual(rig.counters.get("faults"), 1)
      assert.strictEqual(rig.counters.get("maxMicros"), 3000)
      assert.strictEqual(rig.counters.get("outstanding"), 0)
    }))

  it.effect("leads to ON_DEMAND where the block changes and to ON_DEMAND_CONT where it does not", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      for (const [idstr, pages] of [["pc.ram", [2]], ["pc.ram", [2, 3]], ["vga.vram", [0]], ["pc.ram", [0]]] as const) {
        for (const page of pages) yield* read(rig, idstr, page)
        yield* settle
      }
      assert.deepStrictEqual(rig.requests, [
        [1, "pc.ram", [2]],
        [2, "pc.ram", [3]],
        [1, "vga.vram", [0]],
        [1, "pc.ram", [0]]
      ])
      assert.strictEqual(rig.heard.malformed, "")
    }))

  it.effect("on pages of one burst leads to one message a block", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* settle
      for (const page of [3, 0, 1]) yield* read(rig, "pc.ram", page)
      yield* read(rig, "vga.vram", 1)
      yield* settle
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", [3, 0, 1]], [1, "vga.vram", [1]]])
    }))

  it.effect("on a page that came unasked leads to no request", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 1), rig.fill("pc.ram", 2, 0), rig.fill("vga.vram", 1, 0xab))
      yield* until("three pages", () => rig.memory.present() === 3)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), pageOf("pc.ram", 1))
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 2), new Uint8Array(PAGE))
      assert.deepStrictEqual(yield* rig.memory.read("vga.vram", 1), new Uint8Array(PAGE).fill(0xab))
      assert.deepStrictEqual(rig.requests, [])
      assert.deepStrictEqual(["onDemand", "background", "fill"].map((slot) => rig.counters.get(slot as "fill")), [
        0,
        3,
        2
      ])
    }))

  it.effect("and all else that becomes of a page is told to whoever draws a map of the memory", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* read(rig, "pc.ram", 1)
      yield* read(rig, "vga.vram", 1)
      yield* until("the requests", () => rig.requests.length === 2)
      yield* rig.memory.discard("pc.ram", 3, 1)
      yield* TestClock.adjust(5)
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 2), rig.fill("vga.vram", 0, 0))
      yield* until("three pages", () => rig.memory.present() === 3)
      const { counts } = rig.states.cells(6)
      const names = [...COUNTED, "missing"]
      const state = (page: number) => names.at(counts.subarray(page * 4, page * 4 + 4).indexOf(1))
      assert.deepStrictEqual([0, 1, 2, 3, 4, 5].map(state), [
        "missing",
        "onDemand",
        "background",
        "removed",
        "background",
        "requested"
      ])
    }))

  it.effect("comes before or after the guest's READY: nothing is asked before it", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.start
      yield* until("READY", () => rig.told.length > 0)
      const thread = yield* read(rig, "pc.ram", 0)
      yield* settle
      assert.deepStrictEqual([rig.heard.init, rig.requests.length], [0, 0])
      rig.tell(Pipe.ready("guest"))
      yield* until("the request", () => rig.requests.length > 0)
      assert.strictEqual(rig.heard.init, 1)
      yield* rig.feed(rig.page("pc.ram", 0))
      assert.deepStrictEqual(yield* Fiber.join(thread), pageOf("pc.ram", 0))
    }))
})

describe("page records", () => {
  it.effect("B53: a page that comes twice is taken once, and does not undo what the guest wrote", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 1))
      yield* until("the page", () => rig.memory.present() === 1)
      yield* rig.memory.write("pc.ram", 1, 0x77)
      yield* rig.feed(rig.page("pc.ram", 1), rig.fill("pc.ram", 1, 0), rig.page("pc.ram", 3))
      yield* until("the next page", () => rig.memory.present() === 2)
      assert.strictEqual((yield* rig.memory.read("pc.ram", 1))[0], 0x77)
      assert.strictEqual(rig.counters.get("background"), 2)
    }))

  it.effect("are taken whole, in pieces of any size", () =>
    Effect.gen(function*() {
      for (const size of [1, 7, 8, 9, 15, 4095, 4096, 4111]) {
        const rig = yield* DestinationRig.make({ blocks: { "pc.ram": 2 * PAGE } })
        const daemon = yield* rig.run
        const stream = [...rig.page("pc.ram", 1), ...rig.fill("pc.ram", 0, 9), ...rig.eos]
        for (let at = 0; at < stream.length; at += size) {
          yield* rig.feed(Uint8Array.from(stream.slice(at, at + size)))
          if (size > 1 || at < 20) yield* Effect.yieldNow
        }
        yield* until("EOC", () => rig.heard.eoc > 0)
        assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), pageOf("pc.ram", 1))
        rig.tell(Pipe.quit("guest"))
        assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      }
    }))
})

const all = (rig: Effect.Success<ReturnType<typeof DestinationRig.make>>) => [
  ...[0, 1, 2, 3].map((page) => rig.page("pc.ram", page)),
  ...[0, 1].map((page) => rig.page("vga.vram", page))
]

describe("the daemon's end", () => {
  it.effect("is every page, EOS, EOC, QUIT both ways; the userfaultfd stays open for its owner to close", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* rig.feed(...all(rig))
      yield* until("all pages", () => rig.memory.present() === 6)
      yield* settle
      // Without flag bit 0 only EOS ends it.
      assert.deepStrictEqual([rig.tags(), rig.heard.eoc], [["Ready"], 0])
      yield* rig.feed(rig.eos)
      yield* until("QUIT", () => rig.told.length > 1)
      assert.deepStrictEqual(rig.tags(), ["Ready", "Quit"])
      yield* until("EOC", () => rig.heard.eoc === 1)
      assert.isUndefined(daemon.pollUnsafe())
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.heard.eoc, rig.tags(), rig.uffdClosed()], [1, ["Ready", "Quit"], false])
    }))

  it.effect("QUIT of the guest first: EOC is sent, EOS waited for", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 0))
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("EOC and QUIT", () => rig.heard.eoc === 1 && rig.told.length === 2)
      yield* rig.feed(rig.page("pc.ram", 1))
      yield* settle
      assert.isUndefined(daemon.pollUnsafe())
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.heard.eoc, rig.tags()], [1, ["Ready", "Quit"]])
    }))

  it.effect("a source that says nothing after QUIT is left after the time of a goodbye", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      rig.tell(Pipe.quit("guest"))
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* TestClock.adjust(4_999)
      yield* settle
      assert.isUndefined(daemon.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("B47: the end of the channel means QUIT, and nobody has to read the daemon's own (B48)", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* read(rig, "pc.ram", 0)
      yield* until("the request", () => rig.requests.length > 0)
      rig.guest.close()
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("B48: a guest that is gone right after its own QUIT is not waited for", () =>
    Effect.gen(function*() {
      for (const quits of [true, false]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.run
        yield* settle
        if (quits) rig.tell(Pipe.quit("guest"))
        rig.guest.close()
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* rig.feed(rig.eos)
        yield* settle
        assert.deepStrictEqual(daemon.pollUnsafe(), Exit.succeed({ _tag: "Finished" } as const))
      }
    }))

  it.effect("B46: EOC waits in the queue while the source does not read, and the daemon goes on reading", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, link: { capacity: 16 } })
      const daemon = yield* rig.run
      yield* until("INIT", () => rig.heard.init > 0)
      rig.sourceReading(false)
      for (const page of [3, 1, 2]) yield* read(rig, "pc.ram", page)
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("QUIT", () => rig.told.length > 1)
      yield* rig.feed(rig.fill("pc.ram", 1, 7), rig.eos)
      yield* until("the page", () => rig.memory.present() === 1)
      yield* settle
      assert.deepStrictEqual([rig.heard.eoc, daemon.pollUnsafe()], [0, undefined])
      rig.sourceReading(true)
      yield* until("EOC", () => rig.heard.eoc === 1)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.strictEqual(rig.heard.malformed, "")
    }))

  it.effect("B47: bytes on the channel that are no message end it like its end", () =>
    Effect.gen(function*() {
      for (const bytes of [[0x58], [0x74, 0, 0, 0, 0, 0, 0, 0, 0], [0x52]]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.run
        yield* settle
        rig.tell(Uint8Array.from(bytes))
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* rig.feed(rig.eos)
        assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      }
    }))

  it.effect("QUIT before READY: EOC is the last thing the source hears", () =>
    Effect.gen(function*() {
      for (const gone of [false, true]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.start
        yield* settle
        if (gone) rig.guest.close()
        else rig.tell(Pipe.quit("guest"))
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* settle
        assert.strictEqual(rig.heard.malformed, "")
        assert.strictEqual(rig.bytes.at(-1), 6)
        yield* rig.feed(rig.eos)
        assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      }
    }))
})
