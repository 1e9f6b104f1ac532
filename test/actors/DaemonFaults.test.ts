/** Faults become requests, records become pages: the umem daemon's ordinary work. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
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
