/** Memory that the guest gives back: it reads zero from then on, is never fetched, and late data for it is dropped. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { Event } from "../../src/services/Userfaultfd.ts"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { ended, settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE, "vga.vram": 2 * PAGE }
const zeros = new Uint8Array(PAGE)

describe("a removal", () => {
  it.effect("B13: before any request is told to the source, by page of the block", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.memory.discard("pc.ram", 3, 1)
      yield* rig.memory.discard("vga.vram", 0, 1)
      yield* settle
      assert.deepStrictEqual(rig.requests, [[5, "pc.ram", [3]], [5, "vga.vram", [0]]])
      assert.deepStrictEqual(yield* rig.memory.read("vga.vram", 0), zeros)
      assert.deepStrictEqual(rig.requests.length, 2)
      assert.strictEqual(rig.counters.get("removed"), 2)
    }))

  it.effect("of a page that a thread waits for gives it zeros as soon as the kernel takes them, and is not told", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* until("the request", () => rig.requests.length > 0)
      yield* rig.memory.discard("pc.ram", 1, 1)
      // The thread that gives memory back goes on before the kernel takes pages again: one try of the timer.
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(thread), zeros)
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 2))
      yield* until("the page behind it", () => rig.memory.present() === 2)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), zeros)
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", [1]]])
      assert.deepStrictEqual([
        rig.counters.get("removed"),
        rig.counters.get("onDemand"),
        rig.counters.get("background")
      ], [1, 0, 1])
    }))

  it.effect("after arrival is not told; the page reads zero, and counts as received", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 1))
      yield* until("the page", () => rig.memory.present() === 1)
      yield* rig.memory.discard("pc.ram", 1, 1)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), zeros)
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 0))
      yield* until("the page behind it", () => rig.memory.present() === 2)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), zeros)
      assert.deepStrictEqual([rig.requests.length, rig.counters.get("removed"), rig.counters.get("background")], [
        0,
        0,
        2
      ])
    }))

  it.effect("B29: late data for a removed page is dropped, touched or not", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.memory.discard("pc.ram", 0, 2)
      yield* rig.feed(rig.page("pc.ram", 0), rig.fill("pc.ram", 1, 0xee), rig.page("pc.ram", 2))
      yield* until("the page that is wanted", () => rig.memory.present() === 1)
      for (const page of [0, 1]) assert.deepStrictEqual(yield* rig.memory.read("pc.ram", page), zeros)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 2), pageOf("pc.ram", 2))
      assert.deepStrictEqual(rig.requests, [[5, "pc.ram", [0, 1]]])
    }))

  it.effect("B53: a page removed, written and removed again reads zero, whatever comes", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* rig.memory.discard("pc.ram", 0, 1)
      yield* rig.memory.write("pc.ram", 0, 0x55)
      yield* rig.feed(rig.page("pc.ram", 0))
      yield* settle
      assert.strictEqual((yield* rig.memory.read("pc.ram", 0))[0], 0x55)
      yield* rig.memory.discard("pc.ram", 0, 1)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 0), zeros)
      assert.deepStrictEqual([rig.requests.length, rig.counters.get("removed")], [1, 1])
    }))

  it.effect("B29: of a whole block, half of it there, completes it; records and removals after that change nothing", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 0), rig.page("pc.ram", 1))
      yield* until("half of the block", () => rig.memory.present() === 2)
      yield* rig.memory.discard("pc.ram", 0, 4)
      yield* settle
      assert.deepStrictEqual(rig.requests, [[5, "pc.ram", [2, 3]]])
      yield* rig.memory.discard("pc.ram", 1, 2)
      yield* rig.feed(rig.page("pc.ram", 3), rig.page("vga.vram", 0), rig.page("vga.vram", 1), rig.eos)
      yield* until("EOC", () => rig.heard.eoc === 1)
      for (const page of [0, 1, 2, 3]) assert.deepStrictEqual(yield* rig.memory.read("pc.ram", page), zeros)
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      const { counters } = rig
      assert.deepStrictEqual([counters.get("removed"), counters.get("background"), counters.missing()], [2, 4, 0])
    }))

  it.effect("B62: of a part of a block leaves the rest as it was: each later part is told, and what is left is fetched", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      for (
        const [idstr, page, count] of [["pc.ram", 0, 1], ["pc.ram", 2, 1], ["vga.vram", 1, 1], [
          "pc.ram",
          2,
          2
        ]] as const
      ) {
        yield* rig.memory.discard(idstr, page, count)
        yield* settle
      }
      assert.deepStrictEqual(rig.requests, [[5, "pc.ram", [0]], [5, "pc.ram", [2]], [5, "vga.vram", [1]], [
        5,
        "pc.ram",
        [3]
      ]])
      assert.deepStrictEqual(rig.memory.unregistered(), [])
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* until("the request", () => rig.requests.length === 5)
      assert.deepStrictEqual(rig.requests[4], [1, "pc.ram", [1]])
      yield* rig.feed(rig.page("pc.ram", 1))
      assert.deepStrictEqual(yield* Fiber.join(thread), pageOf("pc.ram", 1))
      for (const page of [0, 2, 3]) assert.deepStrictEqual(yield* rig.memory.read("pc.ram", page), zeros)
    }))

  it.effect("B34: behind the first 4 GiB of a block is told as any other, and what is left there is fetched", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks: { rom: PAGE, ram: 5 * 2 ** 30 } })
      yield* rig.run
      const [first, second] = [2 ** 20 + 3, 2 ** 20 + 7]
      yield* rig.memory.discard("ram", first, 1)
      yield* settle
      const thread = yield* Effect.forkScoped(rig.memory.read("ram", second), { startImmediately: true })
      yield* settle
      assert.deepStrictEqual(rig.requests, [[5, "ram", [first]], [1, "ram", [second]]])
      yield* rig.feed(rig.page("ram", first), rig.page("ram", second))
      assert.deepStrictEqual(yield* ended(thread), pageOf("ram", second))
      assert.deepStrictEqual(yield* rig.memory.read("ram", first), zeros)
      assert.strictEqual(rig.memory.present(), 2)
    }))

  it.effect("that is read because it was in the way of its own page keeps that page out", () =>
    Effect.gen(function*() {
      let copies = 0
      let unread = false
      const rig: Effect.Success<ReturnType<typeof DestinationRig.make>> = yield* DestinationRig.make({
        blocks,
        // A kernel whose removal is settled as soon as its event is read, so that a second COPY would succeed at once.
        wrap: (uffd) => ({
          ...uffd,
          copyRun: () => 0,
          copy: (_address, _source, _offset, length) => {
            copies++
            unread = copies === 1
            return copies === 1 ? -11 : length
          },
          drain: () => {
            if (!unread) return uffd.drain()
            unread = false
            const { address } = rig.memory.blocks[0]!
            uffd.ring.set([Event.Remove, address + PAGE, address + 2 * PAGE, 0])
            return 1
          }
        })
      })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 1))
      yield* until("the removal", () => rig.counters.get("removed") + copies > 0)
      yield* TestClock.adjust(10)
      yield* settle
      assert.strictEqual(copies, 1)
    }))

  it.effect("of more than 4063 pages is told in several messages, each of them legal", () =>
    Effect.gen(function*() {
      const pages = 9_000
      const rig = yield* DestinationRig.make({ blocks: { ram: pages * PAGE }, link: { capacity: 256 * 1024 } })
      yield* rig.run
      yield* rig.memory.discard("ram", 0, pages)
      yield* until("all of them", () => rig.requests.reduce((sum, [, , list]) => sum + list.length, 0) === pages)
      assert.isTrue(rig.requests.every(([cmd, , list]) => cmd === 5 && list.length <= 4063))
      assert.deepStrictEqual(rig.requests.flatMap(([, , list]) => list), Array.from({ length: pages }, (_, i) => i))
      assert.strictEqual(rig.heard.malformed, "")
    }))
})
