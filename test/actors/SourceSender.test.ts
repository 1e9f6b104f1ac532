/** What leaves the source after the switchover, and when its life ends. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { onTestFinished, vi } from "vitest"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import { blockOf, PAGE } from "./Contents.ts"
import * as SourceRig from "./SourceRig.ts"
import { ended, settle, until } from "./Turns.ts"

const two = { "pc.ram": blockOf("pc.ram", 40, { 3: 0, 7: 255 }), "vga.vram": blockOf("vga.vram", 9) }
const range = (n: number) => Array.from({ length: n }, (_, i) => i)

describe("the source's page stream", () => {
  it.effect("carries every page exactly once with its bytes, and one EOS behind the last", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), range(40))
      assert.deepStrictEqual(rig.pagesOf("vga.vram"), range(9))
      for (const { bytes, idstr, page } of rig.arrived) {
        assert.deepStrictEqual(bytes, two[idstr as keyof typeof two].subarray(page * PAGE, (page + 1) * PAGE))
      }
      yield* settle
      assert.strictEqual(rig.seen.eos, 1)
      assert.strictEqual(rig.seen.malformed, "")
    }))

  it.effect("says a uniform page in one byte, whatever the byte", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.arrived.filter(({ fill }) => fill).map(({ page }) => page), [3, 7])
      assert.strictEqual(rig.sender.progress().fill, 2)
      assert.strictEqual(rig.sender.progress().bytesSent, rig.seen.bytes)
      assert.isBelow(rig.seen.bytes, 47 * PAGE + 47 * 9 + 2 * 10 + 32)
    }))

  it.effect("goes on turn after turn over a link that takes everything at once", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({
        blocks: { "pc.ram": blockOf("pc.ram", 400) },
        link: { capacity: 4 * 1024 * 1024 }
      })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), range(400))
    }))

  it.effect("sends nothing before the guest's first request, for as long as the destination may need to make it", () =>
    Effect.gen(function*() {
      const passes = Effect.fnUntraced(function*(millis: number) {
        for (let i = 0; i < millis; i++) {
          yield* TestClock.adjust(1)
          yield* settle
        }
      })
      const rig = yield* SourceRig.make({ blocks: two, firstAskMillis: 10 })
      yield* rig.begin
      yield* passes(20)
      rig.send(Request.init())
      yield* passes(8)
      assert.deepStrictEqual(rig.arrived, [])
      rig.ask("vga.vram", 4)
      yield* settle
      assert.deepStrictEqual(rig.arrived.map(({ idstr, page }) => [idstr, page]), [["vga.vram", 4]])
      yield* passes(2)
      assert.strictEqual(rig.seen.eos, 1)

      const silent = yield* SourceRig.make({ blocks: two, firstAskMillis: 10 })
      yield* silent.begin
      silent.send(Request.init())
      yield* passes(12)
      assert.strictEqual(silent.seen.eos, 1)

      const mute = yield* SourceRig.make({ blocks: two, firstAskMillis: 10 })
      yield* mute.begin
      yield* passes(99)
      assert.deepStrictEqual(mute.arrived, [])
      yield* passes(2)
      assert.strictEqual(mute.seen.eos, 1)

      // No longer than the first steps may last, which begin with the destination's first sign of life.
      const brisk = yield* SourceRig.make({ blocks: two, firstAskMillis: 10, firstStepsMillis: 5 })
      yield* brisk.begin
      yield* passes(20)
      brisk.send(Request.init())
      yield* passes(4)
      assert.deepStrictEqual(brisk.arrived, [])
      yield* passes(2)
      assert.strictEqual(brisk.seen.eos, 1)
    }))

  it.effect("goes on behind the page last asked for", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { "pc.ram": blockOf("pc.ram", 400) } })
      rig.reading(false)
      yield* rig.begin
      rig.ask("pc.ram", 300, 200)
      yield* settle
      rig.reading(true)
      // The background waits until the guest has been quiet for a moment.
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust(1)
        yield* settle
      }
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      const pages = rig.pagesOf("pc.ram")
      assert.deepStrictEqual(pages.toSorted((a, b) => a - b), range(400))
      const at = pages.indexOf(300)
      assert.deepStrictEqual(pages.slice(at, at + 5), [300, 200, 201, 202, 203])
    }))

  it.effect("L3: a request of no pages moves nothing: the background goes on where it was, and nothing runs ahead", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({
        blocks: { "pc.ram": blockOf("pc.ram", 40), "vga.vram": blockOf("vga.vram", 9) },
        prefault: { forward: 2, backward: 2 }
      })
      rig.rate.setBackground(false)
      yield* rig.begin
      rig.ask("pc.ram", 20)
      yield* settle
      rig.send(Request.encode({ cmd: 1, idstr: "vga.vram", pages: [] }))
      rig.send(Request.encode({ cmd: 2, pages: [] }))
      yield* settle
      assert.deepStrictEqual(rig.arrived.map(({ page }) => page), [20, 21, 22, 19, 18])
      yield* TestClock.adjust(5)
      rig.rate.setBackground(true)
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.arrived.slice(5, 8).map(({ idstr, page }) => [idstr, page]), [
        ["pc.ram", 23],
        ["pc.ram", 24],
        ["pc.ram", 25]
      ])
      assert.lengthOf(rig.arrived, 49)
    }))

  it.effect("L4: runs ahead of each page asked for, forward first, within the block, and nothing twice", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({
        blocks: { "pc.ram": blockOf("pc.ram", 20), "vga.vram": blockOf("vga.vram", 9) },
        background: false,
        prefault: { forward: 3, backward: 2 }
      })
      yield* rig.begin
      rig.ask("pc.ram", 10)
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [10, 11, 12, 13, 9, 8])
      rig.ask("pc.ram", 18, 0)
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram").slice(6), [18, 0, 19, 1, 2, 3, 17, 16])
      assert.deepStrictEqual(rig.pagesOf("vga.vram"), [])
      const { background, onDemand } = rig.sender.progress()
      assert.deepStrictEqual({ background, onDemand }, { background: 11, onDemand: 3 })
    }))

  it.effect("B72: the background begins with the switchover, not with the first tick", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, maxBandwidth: 2 ** 30 })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.strictEqual(rig.seen.eosAt, 0)
    }))
})

describe("a source without background", () => {
  it.effect("sends what is asked for and nothing else", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      const life = yield* rig.begin
      rig.ask("vga.vram", 8, 2)
      rig.ask("pc.ram", 39)
      yield* until("three pages", () => rig.arrived.length === 3)
      yield* TestClock.adjust("1 hour")
      yield* settle
      assert.deepStrictEqual(rig.arrived.map(({ idstr, page }) => [idstr, page]), [["vga.vram", 8], ["vga.vram", 2], [
        "pc.ram",
        39
      ]])
      assert.deepInclude(rig.sender.progress(), { onDemand: 3, background: 0, dirty: 46 })
      assert.isUndefined(life.pollUnsafe())
    }))

  it.effect("by a switch: it still runs ahead of what is asked for, and sends the rest once it is switched on", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, prefault: { forward: 2, backward: 0 } })
      rig.rate.setBackground(false)
      yield* rig.begin
      rig.ask("pc.ram", 10)
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [10, 11, 12])
      rig.rate.setBackground(true)
      yield* TestClock.adjust(1)
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.lengthOf(rig.arrived, 49)
    }))

  it.effect("B14: ends by itself once every page was asked for or removed", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      const life = yield* rig.begin
      rig.ask("pc.ram", ...range(20))
      rig.remove("pc.ram", ...range(40).slice(20))
      rig.remove("vga.vram", ...range(8))
      yield* settle
      assert.strictEqual(rig.seen.eos, 0)
      rig.remove("vga.vram", 8)
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), range(20))
      assert.deepInclude(rig.sender.progress(), { onDemand: 20, removed: 29, dirty: 0 })
      rig.confirm()
      yield* ended(life)
    }))

  it.effect("B15: ticks do not look for what is left, however much that is", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false, maxBandwidth: 2 ** 20 })
      yield* rig.begin
      rig.ask("pc.ram", 3)
      yield* settle
      const looks = vi.spyOn(Bitmap.prototype, "nextSet")
      onTestFinished(() => looks.mockRestore())
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual(looks.mock.calls.length, 0)
      assert.strictEqual(rig.sender.progress().dirty, 48)
    }))

  it.effect("B13: a removed page is never sent, not even when it is asked for later", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      yield* rig.begin
      rig.remove("vga.vram", 1)
      rig.ask("vga.vram", 1, 2)
      rig.ask("pc.ram", 1)
      yield* until("the others", () => rig.arrived.length === 2)
      yield* settle
      assert.deepStrictEqual(rig.arrived.map(({ idstr, page }) => [idstr, page]), [["vga.vram", 2], ["pc.ram", 1]])
    }))

  it.effect("requests for clean pages yield nothing", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      yield* rig.begin
      rig.ask("pc.ram", 5, 5, 5)
      yield* until("the page", () => rig.arrived.length > 0)
      rig.ask("pc.ram", 5)
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [5])
      assert.strictEqual(rig.sender.progress().onDemand, 1)
    }))
})
