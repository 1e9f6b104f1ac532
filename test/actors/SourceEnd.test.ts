/** When the source's life ends, and what its failures are: the end of the connection, its errors, and memory that is gone. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Request from "../../src/protocol/umem/Request.ts"
import { blockOf } from "./Contents.ts"
import * as SourceRig from "./SourceRig.ts"
import { ended, settle, until } from "./Turns.ts"

const two = { "pc.ram": blockOf("pc.ram", 40, { 3: 0, 7: 255 }), "vga.vram": blockOf("vga.vram", 9) }

describe("the source's end", () => {
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
