import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Vcpu from "../../src/guests/Vcpu.ts"
import * as Blocks from "./Blocks.ts"

const globals = new URL("./fixtures/globals.ts", import.meta.url)

describe.each(Blocks.variants)("a WebAssembly guest, addon: %s", (addon) => {
  it.live("is one resizable block with the maximum that it declared", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(globals, { addon })
      assert.strictEqual(vcpu.kind, "wasm")
      assert.deepStrictEqual(vcpu.blocks().map(({ idstr, length, maximum }) => [idstr, length, maximum]), [
        ["wasm.memory", 65536, 16 * 65536]
      ])
    }))

  it.live("moves with its memory, its globals and its own device state, after both have grown", () =>
    Effect.gen(function*() {
      const source = yield* Vcpu.load(globals, { addon })
      const destination = yield* Vcpu.load(globals, { addon })
      yield* source.start
      yield* source.call({ op: "set" })
      yield* source.call({ op: "grow", pages: 2 })
      yield* source.call({ op: "poke", at: 3 * 65536 - 1, value: 77 })
      const before = yield* source.call({})
      yield* source.pause
      const state = yield* source.capture
      const [grown] = source.blocks()
      assert.strictEqual(grown!.length, 3 * 65536)
      const block = yield* destination.grow("wasm.memory", grown!.length)
      assert.strictEqual(block.length, 3 * 65536)
      assert.deepStrictEqual(destination.blocks(), [block])
      Blocks.copy(source.blocks(), destination.blocks())
      yield* destination.restore(state)
      assert.deepStrictEqual(yield* destination.call({}), before)
      assert.deepStrictEqual(before, [-3, String(-(2n ** 62n)), 0.5, Math.PI, "kept", 3 * 65536])
      assert.strictEqual(yield* destination.call({ op: "peek", at: 3 * 65536 - 1 }), 77)
      assert.strictEqual(yield* destination.call({ op: "peek", at: 2 }), 3)
    }))

  it.live("grows to what its module and its memory allow only", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(globals, { addon })
      const [before] = vcpu.blocks()
      assert.strictEqual((yield* vcpu.grow("wasm.memory", 65536)).length, 65536)
      for (const bytes of [0, 65535, 65536 + 4096, 17 * 65536, 2 ** 53, Number.NaN, -65536]) {
        const error = yield* Effect.flip(vcpu.grow("wasm.memory", bytes))
        assert.strictEqual(error.phase, "grow")
      }
      assert.match((yield* Effect.flip(vcpu.grow("pc.ram", 65536))).message, /no block "pc.ram"/)
      assert.deepStrictEqual(vcpu.blocks(), [before!])
      assert.strictEqual((yield* vcpu.grow("wasm.memory", 16 * 65536)).length, 16 * 65536)
    }))

  it.live("refuses the device state of another kind of guest", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(globals, { addon })
      const error = yield* Effect.flip(vcpu.restore(new TextEncoder().encode("{}")))
      assert.strictEqual(error.phase, "restore")
      assert.match(error.message, /not that of a WebAssembly guest/)
    }))
})
