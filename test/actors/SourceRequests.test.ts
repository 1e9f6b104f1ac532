/** What the source takes from the destination: requests in every legal form, and every illegal one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Request from "../../src/protocol/umem/Request.ts"
import { blockOf } from "./Contents.ts"
import * as SourceRig from "./SourceRig.ts"
import { ended, settle, until } from "./Turns.ts"

const blocks = { "pc.ram": blockOf("pc.ram", 16), "pc.ram2": blockOf("pc.ram2", 4) }
const name = (idstr: string) => [idstr.length, ...new TextEncoder().encode(idstr)]
const be32 = (n: number) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]
const be64 = (n: number) => [...be32(Math.floor(n / 2 ** 32)), ...be32(n % 2 ** 32)]

describe("the source's requests", () => {
  it.effect("INIT is accepted, as a sign of life", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks, background: false })
      const life = yield* rig.begin
      assert.isFalse(rig.receiver.heard())
      rig.send(Request.init())
      yield* until("it to be heard", rig.receiver.heard)
      yield* settle
      assert.isUndefined(life.pollUnsafe())
      assert.strictEqual(rig.receiver.bytesReceived(), 1)
    }))

  it.effect("CONT means the block of the last request, REMOVE leaves it alone", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks, background: false })
      yield* rig.begin
      rig.send(Request.encode({ cmd: 1, idstr: "pc.ram2", pages: [3] }))
      rig.send(Request.encode({ cmd: 5, idstr: "pc.ram", pages: [0] }))
      rig.send(Request.encode({ cmd: 2, pages: [1] }))
      rig.send(Request.encode({ cmd: 3, idstr: "pc.ram", pages: [] }))
      rig.send(Request.encode({ cmd: 4, pages: [2] }))
      yield* until("three pages", () => rig.arrived.length === 3)
      assert.deepStrictEqual(rig.arrived.map(({ idstr, page }) => [idstr, page]), [
        ["pc.ram2", 3],
        ["pc.ram2", 1],
        ["pc.ram", 2]
      ])
    }))

  it.effect("a request that comes while pages are pushed past the sender is served at once", () =>
    Effect.gen(function*() {
      let calls = 0
      const rig = yield* SourceRig.make({
        blocks,
        // The link takes everything, and says nothing more: what is not sent in this turn is never sent.
        wrap: (link) => ({ ...link, watch: (readable) => link.watch(readable, false) }),
        quickly: (sender) => {
          if (calls++ === 0) sender.serve({ _tag: "OnDemand", idstr: "pc.ram", pages: [7] })
          return true
        }
      })
      yield* rig.begin
      yield* until("the page", () => rig.arrived.length > 0)
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [7])
    }))

  it.effect("a request may come in pieces of one byte", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks, background: false })
      const life = yield* rig.begin
      const bytes = [...Request.encode({ cmd: 1, idstr: "pc.ram", pages: [9, 11] }), ...Request.eoc()]
      for (const byte of bytes) {
        rig.send(Uint8Array.of(byte))
        yield* settle
      }
      yield* Fiber.join(life)
      yield* until("the EOS", () => rig.seen.eos > 0)
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [9, 11])
    }))

  it.effect("B09: a block is found by its whole name", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks: { "pc.ram2": blocks["pc.ram2"] }, background: false })
      const life = yield* rig.begin
      rig.send(Request.encode({ cmd: 1, idstr: "pc.ram", pages: [0] }))
      assert.strictEqual((yield* Effect.flip(ended(life)))._tag, "MalformedInput")
      assert.strictEqual(rig.arrived.length, 0)
    }))

  it.effect("B09: of two blocks of which one's name begins the other's each gets its own requests", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({
        blocks: { "pc.ram2": blocks["pc.ram2"], "pc.ram": blocks["pc.ram"] },
        background: false
      })
      yield* rig.begin
      for (const [idstr, page] of [["pc.ram", 3], ["pc.ram2", 2], ["pc.ram", 9]] as const) rig.ask(idstr, page)
      rig.remove("pc.ram", 1)
      rig.ask("pc.ram2", 1)
      rig.ask("pc.ram", 1, 0)
      yield* settle
      assert.deepStrictEqual(rig.arrived.map(({ idstr, page }) => [idstr, page]), [
        ["pc.ram", 3],
        ["pc.ram2", 2],
        ["pc.ram", 9],
        ["pc.ram2", 1],
        ["pc.ram", 0]
      ])
    }))

  const malformed: ReadonlyArray<readonly [title: string, bytes: ReadonlyArray<number>, offset: number]> = [
    ["B04: an unknown command byte", [7], 0],
    ["B04: a command byte above 127", [0xff], 0],
    ["B05: a count of 2^32 - 1", [1, ...name("pc.ram"), ...be32(0xffffffff)], 8],
    ["B05: a count one above what fits", [1, ...name("pc.ram"), ...be32(4096)], 8],
    ["B06: a name of no bytes", [1, 0], 1],
    ["B09: a block that is not there", [1, ...name("pc.rom"), ...be32(1), ...be64(0)], 2],
    ["B10: a CONT before any block was named", [2, ...be32(1), ...be64(0)], 0],
    ["B10: a CONT after nothing but a REMOVE", [5, ...name("pc.ram"), ...be32(1), ...be64(0), 2, ...be32(1)], 20],
    ["B11: a page behind the block's end", [1, ...name("pc.ram"), ...be32(1), ...be64(16)], 12],
    ["B11: a page number of 64 bits", [1, ...name("pc.ram"), ...be32(1), 255, 255, 255, 255, 255, 255, 255, 255], 12],
    [
      "B11: a page number whose byte offset has more than 32 bits",
      [1, ...name("pc.ram"), ...be32(1), ...be64(2 ** 20)],
      12
    ],
    ["B11: a removal behind the block's end", [5, ...name("pc.ram2"), ...be32(1), ...be64(4)], 13],
    ["B12: a count with the sign bit set", [1, ...name("pc.ram"), ...be32(0x80000000)], 8],
    ["B12: a count of 2^32 - 1 for a CONT", [1, ...name("pc.ram"), ...be32(0), 2, ...be32(0xffffffff)], 13]
  ]
  it.effect.each(malformed)(
    "%s is malformed input, and the actor's failure",
    ([, bytes, offset]) =>
      Effect.gen(function*() {
        const rig = yield* SourceRig.make({ blocks, background: false })
        const life = yield* rig.begin
        rig.send(Uint8Array.from(bytes))
        const error = yield* Effect.flip(ended(life))
        assert.strictEqual(error._tag, "MalformedInput")
        if (error._tag === "MalformedInput") assert.isAtMost(error.offset, offset)
        assert.deepStrictEqual([rig.arrived.length, rig.seen.eos], [0, 0])
      })
  )

  it.effect("malformed input after the last page is a failure too, and a request cut off by the end", () =>
    Effect.gen(function*() {
      const late = yield* SourceRig.make({ blocks })
      const lateLife = yield* late.begin
      yield* until("the end of the stream", () => late.seen.eos > 0)
      late.send(Uint8Array.of(7))
      assert.strictEqual((yield* Effect.flip(ended(lateLife)))._tag, "MalformedInput")

      const cut = yield* SourceRig.make({ blocks, background: false })
      const cutLife = yield* cut.begin
      cut.send(Uint8Array.of(1, 6, 0x70))
      cut.there.close()
      assert.strictEqual((yield* Effect.flip(ended(cutLife)))._tag, "MalformedInput")
    }))

  it.effect("everything before the malformed byte is still served", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks, background: false })
      const life = yield* rig.begin
      rig.send(Uint8Array.of(...Request.encode({ cmd: 1, idstr: "pc.ram", pages: [4] }), 9))
      yield* Effect.flip(ended(life))
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram"), [4])
    }))
})

describe("a hostile destination", () => {
  it.effect("that asks for the same pages again and again gets each once, and nothing grows", () =>
    Effect.gen(function*() {
      const rig = yield* SourceRig.make({ blocks, background: false, link: { capacity: 8 * 1024 } })
      yield* rig.begin
      rig.reading(false)
      const again = Request.encode({ cmd: 1, idstr: "pc.ram", pages: Array.from({ length: 256 }, (_, i) => i % 16) })
      let asked = 0
      for (let i = 0; i < 2_000; i++) {
        if (rig.there.write(again, 0, again.length) === again.length) asked++
        else break
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        yield* Effect.yieldNow
      }
      // The link toward the destination is full all the while: requests are read nevertheless.
      assert.isAbove(asked, 100)
      rig.reading(true)
      yield* until("the pages", () => rig.arrived.length >= 16)
      yield* settle
      assert.deepStrictEqual(rig.pagesOf("pc.ram").toSorted((a, b) => a - b), Array.from({ length: 16 }, (_, i) => i))
      assert.strictEqual(rig.sender.progress().onDemand, 16)
    }))
})
