import { assert, describe, it } from "@effect/vitest"
import * as DeviceState from "../../src/guests/DeviceState.ts"
import { engine } from "../../src/guests/WasmTypes.ts"

const instance = () => ({
  i32: new engine.Global({ value: "i32", mutable: true }, 0),
  i64: new engine.Global({ value: "i64", mutable: true }, 0n),
  f64: new engine.Global({ value: "f64", mutable: true }, 0),
  constant: new engine.Global({ value: "i32" }, 4),
  reference: new engine.Global({ value: "externref", mutable: true }, null),
  run: () => {}
})

describe("DeviceState", () => {
  it("carries exported mutable numeric globals and the bytes of save", () => {
    const source = instance()
    source.i32.value = -(2 ** 31)
    source.i64.value = -(2n ** 63n)
    source.f64.value = -0
    const state = DeviceState.encode(source, Uint8Array.of(1, 2, 3))
    const destination = instance()
    assert.deepStrictEqual([...DeviceState.apply(destination, state)], [1, 2, 3])
    assert.strictEqual(destination.i32.value, -(2 ** 31))
    assert.strictEqual(destination.i64.value, -(2n ** 63n))
    assert.isTrue(Object.is(destination.f64.value, -0))
    assert.strictEqual(destination.constant.value, 4)
  })

  it("carries infinities and NaN", () => {
    for (const value of [Infinity, -Infinity, Number.NaN, Number.MIN_VALUE]) {
      const source = { g: new engine.Global({ value: "f64", mutable: true }, value) }
      const destination = { g: new engine.Global({ value: "f64", mutable: true }, 1) }
      DeviceState.apply(destination, DeviceState.encode(source, new Uint8Array(0)))
      assert.isTrue(Object.is(destination.g.value, value))
    }
  })

  it("refuses an envelope that ends within its header, wherever it ends", () => {
    const state = DeviceState.encode(instance(), new Uint8Array(0))
    for (let length = 0; length < state.length; length++) {
      assert.throws(() => DeviceState.apply(instance(), state.subarray(0, length)), /device state/)
    }
  })

  it("refuses bytes that are not an envelope", () => {
    assert.throws(
      () => DeviceState.apply({}, new TextEncoder().encode("{\"ticks\":1}")),
      /not that of a WebAssembly guest/
    )
    const header = (text: string) => {
      const bytes = new TextEncoder().encode(text)
      return Uint8Array.of(0x70, 0x63, 0x77, 0x31, 0, 0, 0, bytes.length, ...bytes)
    }
    assert.throws(() => DeviceState.apply({}, header("null")), /malformed/)
    assert.throws(() => DeviceState.apply({}, header("{\"globals\":[[\"a\",\"f\",\"zz\"]]}")), /malformed/)
    assert.throws(() => DeviceState.apply({}, header("{")), /JSON/)
  })

  it("refuses globals of another module", () => {
    const { i32, ...others } = instance()
    const state = DeviceState.encode(instance(), new Uint8Array(0))
    assert.throws(() => DeviceState.apply(others, state), /no mutable global "i32"/)
    assert.throws(() => DeviceState.apply({ ...others, i32: others.i64, i64: i32 }, state), /no mutable global/)
    assert.throws(
      () => DeviceState.apply(instance(), DeviceState.encode(others, new Uint8Array(0))),
      /sent no global "i32"/
    )
  })
})
