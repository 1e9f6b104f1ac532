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

  it.effect("B02: completes only after EOC, also when EOC comes with every page already sent", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two })
      const life = yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(life.pollUnsafe())
      rig.confirm()
      yield* ended(life)
      assert.strictEqual(rig.seen.eos, 1)
    }))

  it.effect("B03: EOC while pages are unsent ends it with an EOS, and what the peer does next is no event", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      const life = yield* rig.begin
      yield* settle
      assert.strictEqual(rig.arrived.length, 0)
      rig.confirm()
      rig.there.write(Uint8Array.of(0x07, 0x07), 0, 2)
      yield* ended(life)
      yield* until("the EOS", () => rig.seen.eos > 0)
      assert.deepStrictEqual([rig.arrived.length, rig.seen.eos], [0, 1])
    }))

  it.effect("B03: after EOC the connection is neither read nor waited for, though it stays readable for ever", () =>
    Effect.gen(function*() {
      let reads = 0
      let watched = true
      const rig: Effect.Success<ReturnType<typeof SourceRig.make>> = yield* SourceRig.make({
        blocks: two,
        wrap: (link) => ({
          ...link,
          read: (into, offset, length) => {
            if (rig.receiver.ended()) reads++
            return link.read(into, offset, length)
          },
          watch: (readable, writable) => {
            watched = readable
            link.watch(readable, writable)
          }
        })
      })
      rig.reading(false)
      const life = yield* rig.begin
      yield* settle
      rig.confirm()
      yield* until("the end of the requests", rig.receiver.ended)
      rig.send(Uint8Array.of(7, 7))
      rig.reading(true)
      yield* ended(life)
      yield* settle
      rig.there.close()
      yield* settle
      assert.deepStrictEqual({ reads, watched, eos: rig.seen.eos }, { reads: 0, watched: false, eos: 1 })
    }))

  it.effect("B01: the end of the connection without EOC is a failure, before and after the last page", () =>
    Effect.gen(function*() {
      for (const background of [false, true]) {
        const rig = yield* SourceRig.make({ blocks: two, background })
        const life = yield* rig.begin
        if (background) yield* until("the end of the stream", () => rig.seen.eos > 0)
        rig.there.close()
        const error = yield* Effect.flip(ended(life))
        assert.strictEqual(error._tag, "LinkFailed")
        assert.strictEqual(error._tag === "LinkFailed" ? error.code : "", "EOF")
      }
    }))

  it.effect("B01: a reset is a failure with its name", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, background: false })
      const life = yield* rig.begin
      yield* settle
      rig.there.reset()
      const error = yield* Effect.flip(ended(life))
      assert.strictEqual(error._tag === "LinkFailed" ? error.code : error._tag, "ECONNRESET")
    }))

  it.effect("B17: an error of writing is the failure of the migration", () =>
    Effect.gen(function*() {
      let room = 50_000
      const rig = yield* SourceRig.make({
        blocks: two,
        wrap: (link) => ({
          ...link,
          write: (from, offset, length) => {
            if (room <= 0) return -32
            room -= length
            return link.write(from, offset, length)
          }
        })
      })
      const life = yield* rig.begin
      const error = yield* Effect.flip(ended(life))
      assert.strictEqual(error._tag === "LinkFailed" ? error.code : error._tag, "EPIPE")
      assert.strictEqual(rig.seen.eos, 0)
    }))

  it.effect("B22: a write that takes nothing is an error, not something to try for ever", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, wrap: (link) => ({ ...link, write: () => 0 }) })
      const error = yield* Effect.flip(ended(yield* rig.begin))
      assert.strictEqual(error._tag === "LinkFailed" ? error.code : error._tag, "EIO")
    }))

  it.effect("B20: an errno of the link is the failure's name, whatever it is", () =>
    Effect.gen(function*() {
      for (const [errno, code] of [[32, "EPIPE"], [104, "ECONNRESET"], [110, "ETIMEDOUT"], [5, "EIO"]] as const) {
        const rig = yield* SourceRig.make({
          blocks: two,
          background: false,
          wrap: (link) => ({ ...link, read: () => -errno })
        })
        const life = yield* rig.begin
        rig.send(Request.init())
        const error = yield* Effect.flip(ended(life))
        assert.strictEqual(error._tag === "LinkFailed" ? error.code : error._tag, code)
        const full = yield* SourceRig.make({ blocks: two, wrap: (link) => ({ ...link, write: () => -errno }) })
        const failure = yield* Effect.flip(ended(yield* full.begin))
        assert.strictEqual(failure._tag === "LinkFailed" ? failure.code : failure._tag, code)
      }
    }))

  it.effect("B18: a link that failed is not written to again, whoever asks", () =>
    Effect.gen(function*() {
      let writes = 0
      const rig = yield* SourceRig.make({
        blocks: two,
        wrap: (link) => ({
          ...link,
          write: () => {
            writes++
            return -32
          }
        })
      })
      yield* Effect.flip(ended(yield* rig.begin))
      rig.sender.pump()
      rig.sender.serve({ _tag: "OnDemand", idstr: "pc.ram", pages: Float64Array.of(3) })
      rig.rate.set(1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(writes, 1)
    }))

  it.effect("B72: the background begins with the switchover, not with the first tick", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, maxBandwidth: 2 ** 30 })
      yield* rig.begin
      yield* until("the end of the stream", () => rig.seen.eos > 0)
      assert.strictEqual(rig.seen.eosAt, 0)
    }))

  it.effect("memory that cannot be read is a failure, not a page of something else", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: two, wrapBlock: (block) => ({ ...block, read: () => -14 }) })
      const life = yield* rig.begin
      const error = yield* Effect.flip(ended(life))
      assert.strictEqual(error._tag === "LinkFailed" ? error.code : error._tag, "EFAULT")
      yield* settle
      assert.deepStrictEqual(rig.arrived.filter(({ fill }) => !fill), [])
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
