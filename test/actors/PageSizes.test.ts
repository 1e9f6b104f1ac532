/** Target pages larger and smaller than host pages, end to end through the daemon, tail and removals included. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const K = 1024
const shapes = [
  { targetPageSize: 4 * K, hostPageSize: 4 * K },
  { targetPageSize: 8 * K, hostPageSize: 4 * K },
  { targetPageSize: 4 * K, hostPageSize: 16 * K },
  { targetPageSize: 4 * K, hostPageSize: 64 * K }
]
/** Two blocks, the second not aligned to the largest host page; the first ends within one. */
const blocks = { "pc.ram": 152 * K, "vga.vram": 72 * K }

type Rig = Effect.Success<ReturnType<typeof DestinationRig.make>>

/** Host page `host` of a block as the source has it, with zeros behind the block's end. */
const expected = (
  idstr: keyof typeof blocks,
  host: number,
  { hostPageSize: H, targetPageSize: T }: typeof shapes[0]
) => {
  const block = new Uint8Array(Math.ceil(blocks[idstr] / H) * H)
  for (let target = 0; target * T < blocks[idstr]; target++) block.set(pageOf(idstr, target, T), target * T)
  return block.slice(host * H, (host + 1) * H)
}

const targets = (idstr: keyof typeof blocks, size: number) => Array.from({ length: blocks[idstr] / size }, (_, i) => i)
const names = ["pc.ram", "vga.vram"] as const

const finish = (rig: Rig, daemon: Fiber.Fiber<unknown>) =>
  Effect.gen(function*() {
    yield* rig.feed(rig.eos)
    yield* until("EOC", () => rig.heard.eoc === 1)
    rig.tell(Pipe.quit("guest"))
    assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    assert.strictEqual(rig.counters.missing(), 0)
  })

const modes = ["copy", "continue"] as const
const combinations = shapes.flatMap((shape) => modes.map((mode) => ({ ...shape, mode })))

describe.each(combinations)("target pages of $targetPageSize bytes on host pages of $hostPageSize, $mode", (shape) => {
  const { hostPageSize, targetPageSize } = shape
  for (const order of ["in order", "in reverse", "each twice"] as const) {
    it.effect(`B30: arrive ${order}, and every host page is whole (B33 too)`, () =>
      Effect.gen(function*() {
        const rig = yield* DestinationRig.make({ blocks, ...shape })
        const daemon = yield* rig.run
        for (const idstr of names) {
          const list = targets(idstr, targetPageSize)
          for (const target of order === "in reverse" ? list.toReversed() : list) {
            yield* rig.feed(rig.page(idstr, target))
            if (order === "each twice") yield* rig.feed(rig.page(idstr, target))
          }
        }
        yield* finish(rig, daemon)
        for (const idstr of names) {
          for (let host = 0; host * hostPageSize < blocks[idstr]; host++) {
            assert.deepStrictEqual(yield* rig.memory.read(idstr, host), expected(idstr, host, shape))
          }
        }
        assert.deepStrictEqual([rig.requests, rig.counters.get("background")], [[], 224 * K / targetPageSize])
      }))
  }

  it.effect("B31: a fault asks for the target pages of its host page, once, and waits for all of them", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, ...shape })
      yield* rig.run
      const host = Math.ceil(blocks["pc.ram"] / hostPageSize) - 1
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", host), { startImmediately: true })
      yield* until("the request", () => rig.requests.length > 0)
      const first = Math.floor(host * hostPageSize / targetPageSize)
      const past = Math.min(Math.ceil((host + 1) * hostPageSize / targetPageSize), blocks["pc.ram"] / targetPageSize)
      const list = Array.from({ length: past - first }, (_, i) => first + i)
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", list]])
      for (const target of list) {
        assert.isUndefined(thread.pollUnsafe())
        yield* rig.feed(rig.page("pc.ram", target))
        yield* settle
      }
      assert.deepStrictEqual(yield* Fiber.join(thread), expected("pc.ram", host, shape))
      yield* settle
      assert.deepStrictEqual([rig.requests.length, rig.counters.get("onDemand")], [1, list.length])
    }))

  it.effect("B34: a removal tells exactly the target pages that nothing is left of", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, ...shape })
      const daemon = yield* rig.run
      yield* rig.memory.discard("vga.vram", 0, 1)
      yield* settle
      const whole = Math.floor(hostPageSize / targetPageSize)
      const told = Array.from({ length: whole }, (_, i) => i)
      assert.deepStrictEqual(
        rig.requests.flatMap(([cmd, idstr, pages]) => [[cmd, idstr, pages]]),
        whole === 0 ? [] : [[5, "vga.vram", told]]
      )
      for (const idstr of names) {
        for (const target of targets(idstr, targetPageSize)) yield* rig.feed(rig.page(idstr, target))
      }
      yield* finish(rig, daemon)
      assert.deepStrictEqual(yield* rig.memory.read("vga.vram", 0), new Uint8Array(hostPageSize))
      assert.deepStrictEqual(yield* rig.memory.read("vga.vram", 1), expected("vga.vram", 1, shape))
      assert.strictEqual(rig.counters.get("removed"), whole)
    }))
})

describe("target pages of 4 KiB on host pages of 16", () => {
  it.effect("B32: the last of four target pages caches one host page, and the three before it none", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, targetPageSize: 4 * K, hostPageSize: 16 * K })
      yield* rig.run
      for (const target of [5, 7, 4]) {
        yield* rig.feed(rig.page("pc.ram", target))
        yield* settle
        assert.strictEqual(rig.memory.present(), 0)
      }
      yield* rig.feed(rig.page("pc.ram", 6))
      yield* until("the host page", () => rig.memory.present() === 1)
      const whole = expected("pc.ram", 1, { targetPageSize: 4 * K, hostPageSize: 16 * K })
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), whole)
    }))
})

describe("target pages of 8 KiB on host pages of 4", () => {
  it.effect("faults on both halves lead to one request, whose answer serves both", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, targetPageSize: 8 * K, hostPageSize: 4 * K })
      yield* rig.run
      const threads = []
      for (const host of [3, 2]) {
        threads.push(yield* Effect.forkScoped(rig.memory.read("pc.ram", host), { startImmediately: true }))
        yield* settle
      }
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", [1]]])
      yield* rig.feed(rig.page("pc.ram", 1))
      for (const [i, host] of [3, 2].entries()) {
        const half = pageOf("pc.ram", 1, 8 * K).slice((host - 2) * 4 * K, (host - 1) * 4 * K)
        assert.deepStrictEqual(yield* Fiber.join(threads[i]!), half)
      }
    }))

  it.effect("both halves removed one after the other: the page is told with the second", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, targetPageSize: 8 * K, hostPageSize: 4 * K })
      yield* rig.run
      yield* rig.memory.discard("pc.ram", 5, 1)
      yield* settle
      assert.deepStrictEqual(rig.requests, [])
      yield* rig.memory.discard("pc.ram", 4, 1)
      yield* settle
      assert.deepStrictEqual(rig.requests, [[5, "pc.ram", [2]]])
    }))
})
