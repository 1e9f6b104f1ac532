/** The bandwidth limit as the wire shows it, and pages asked for that do not wait for it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { blockOf, PAGE } from "./Contents.ts"
import * as SourceRig from "./SourceRig.ts"
import { settle, until } from "./Turns.ts"

/** One background chunk: what a tick may go beyond its budget. */
const CHUNK = 16 * 1024 + PAGE + 32

describe("the bandwidth limit", () => {
  it.effect("lets a budget pass in each tick of 100 ms, and nothing between two ticks", () =>
    Effect.gen(function*() {
      const perTick = 64 * 1024
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 400) }, maxBandwidth: perTick * 10 })
      yield* rig.begin
      yield* settle
      let before = rig.seen.bytes
      assert.isAtLeast(before, perTick)
      assert.isAtMost(before, perTick + CHUNK)
      for (let tick = 1; tick <= 10; tick++) {
        yield* TestClock.adjust(99)
        yield* settle
        assert.strictEqual(rig.seen.bytes, before, `nothing within tick ${tick}`)
        yield* TestClock.adjust(1)
        yield* settle
        assert.isAtLeast(rig.seen.bytes - before, perTick)
        assert.isAtMost(rig.seen.bytes - before, perTick + CHUNK)
        before = rig.seen.bytes
      }
    }))

  it.effect("B16: a page asked for arrives at the same instant, the background later", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 400) }, maxBandwidth: 64 * 1024 })
      yield* rig.begin
      yield* TestClock.adjust(250)
      yield* settle
      const before = rig.arrived.length
      const at = 250
      rig.ask("ram", 399, 200)
      yield* until("the answer", () => rig.arrived.length >= before + 2)
      assert.deepStrictEqual(rig.arrived.slice(before).map(({ at, page }) => [page, at]), [[399, at], [200, at]])
      yield* settle
      assert.strictEqual(rig.arrived.length, before + 2)
      yield* TestClock.adjust(1000)
      yield* settle
      const [next] = rig.arrived.slice(before + 2)
      assert.isAbove(next!.at, at)
    }))

  for (const quick of [false, true]) {
    it.effect(`B16: pages asked for come at once and are charged to the budget, ${quick ? "quickly" : "ordinarily"}`, () =>
      Effect.gen(function*() {
        const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 400) }, maxBandwidth: 0, quick })
        yield* rig.begin
        for (let page = 399; page > 359; page -= 8) {
          rig.ask("ram", ...Array.from({ length: 8 }, (_, i) => page - i))
          yield* settle
        }
        assert.deepStrictEqual(
          rig.arrived.map(({ at, page }) => [page, at]),
          Array.from({ length: 40 }, (_, i) => [399 - i, 0])
        )
        assert.strictEqual(rig.answeredQuickly(), quick ? 32 : 0)
        // The guest is quiet again, and the budget of this tick spent by what it has asked for.
        yield* TestClock.adjust(5)
        rig.rate.set(10 * 64 * 1024)
        yield* settle
        assert.strictEqual(rig.arrived.length, 40)
        yield* TestClock.adjust(95)
        yield* settle
        assert.isAbove(rig.arrived.length, 40)
      }))
  }

  it.effect("a change takes effect at once: off, on, and off again", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 600) }, maxBandwidth: 0 })
      const life = yield* rig.begin
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual(rig.arrived.length, 0)
      rig.rate.set(10 * 64 * 1024)
      yield* settle
      const some = rig.seen.bytes
      assert.isAtLeast(some, 64 * 1024)
      assert.isAtMost(some, 64 * 1024 + CHUNK)
      rig.rate.set(0)
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual(rig.seen.bytes, some)
      rig.rate.set(undefined)
      yield* until("the end of the stream", () => rig.seen.eos === 1)
      assert.strictEqual(rig.seen.eosAt, 20_000)
      rig.confirm()
      yield* Fiber.join(life)
    }))

  it.effect("a limit that is set while unlimited holds within a tick", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 2000) }, link: { capacity: 16 * 1024 } })
      yield* rig.begin
      yield* until("a megabyte", () => rig.seen.bytes > 2 ** 20)
      rig.rate.set(640 * 1024)
      yield* settle
      const before = rig.seen.bytes
      assert.isBelow(before, 2 ** 20 + 128 * 1024)
      yield* TestClock.adjust(300)
      yield* settle
      assert.isAtLeast(rig.seen.bytes - before, 3 * 64 * 1024)
      assert.isAtMost(rig.seen.bytes - before, 3 * (64 * 1024 + CHUNK))
    }))

  it.effect("without a limit no time is needed, and no timer set", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 2000) } })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos === 1)
      assert.strictEqual(rig.seen.eosAt, 0)
    }))
})

describe("a page asked for", () => {
  it.effect("overtakes the background: at most what is in the link and one chunk come before it", () =>
    Effect.gen(function*() {
      const capacity = 16 * 1024
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 1000) }, link: { capacity } })
      yield* rig.begin
      yield* until("some background", () => rig.arrived.length > 50)
      rig.reading(false)
      yield* settle
      const before = rig.arrived.length
      rig.ask("ram", 999)
      yield* settle
      rig.reading(true)
      yield* until("the answer", () => rig.arrived.some(({ page }) => page === 999))
      const ahead = rig.arrived.findIndex(({ page }) => page === 999) - before
      assert.isAtMost(ahead, (capacity + CHUNK) / PAGE + 1)
    }))

  it.effect("overtakes the background within a turn: requests are looked for between any two chunks", () =>
    Effect.gen(function*() {
      let written = 0
      let writtenBefore = -1
      const rig: Effect.Success<ReturnType<typeof SourceRig.make>> = yield* SourceRig.make({
        blocks: { ram: blockOf("ram", 1000) },
        link: { capacity: 8 * 1024 * 1024 },
        wrap: (link) => ({
          ...link,
          write: (from, offset, length) => {
            const n = link.write(from, offset, length)
            written += n
            if (writtenBefore < 0 && written > 100 * 1024) {
              writtenBefore = written
              rig.ask("ram", 999)
            }
            return n
          }
        })
      })
      yield* rig.begin
      yield* settle
      const at = rig.arrived.findIndex(({ page }) => page === 999)
      assert.isAtLeast(at, 100 / 4)
      assert.isAtMost(at * PAGE, writtenBefore + CHUNK)
    }))

  it.effect("while the guest takes its first steps the background waits for it, and not for long", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { ram: blockOf("ram", 1000) }, link: { capacity: 16 * 1024 } })
      yield* rig.begin
      yield* until("some background", () => rig.arrived.length > 50)
      rig.ask("ram", 999)
      yield* until("the answer", () => rig.arrived.some(({ page }) => page === 999))
      yield* settle
      const held = rig.arrived.length
      yield* settle
      assert.strictEqual(rig.arrived.length, held)
      yield* TestClock.adjust(1)
      yield* until("all of it", () => rig.seen.eos === 1)
      assert.strictEqual(rig.seen.eosAt, 1)
    }))
})
