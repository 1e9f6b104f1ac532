import { assert, describe, it } from "@effect/vitest"
import * as Guest from "../../src/guests/Guest.ts"

const block = (idstr: string, length = 4096) => ({ idstr, length })
const memory = { buffer: new ArrayBuffer(65536), grow: () => 0 }

describe("Guest.memory", () => {
  it("makes a definition that another copy of the package knows", () => {
    const definition = Guest.memory({ blocks: [block("pc.ram")], step: () => {} })
    assert.strictEqual(definition._tag, "postcopy/Guest.memory")
    assert.isTrue(Guest.isDefinition({ ...definition }))
    assert.isFalse(Guest.isDefinition({ blocks: [] }))
    assert.isFalse(Guest.isDefinition(undefined))
  })

  it.each(
    [
      ["an empty name", [block("")], /idstr "" is not 1 to 255 bytes/],
      ["a name of 256 bytes", [block("é".repeat(128))], /has 256/],
      ["half a surrogate pair", [block("\ud800")], /UTF-8/],
      ["a length that is no multiple of a page", [block("a", 4097)], /length of a is 4097/],
      ["a length of zero", [block("a", 0)], /length of a is 0/],
      ["a negative length", [block("a", -4096)], /length of a is -4096/],
      ["an endless length", [block("a", Infinity)], /length of a is Infinity/],
      ["two blocks of one name", [block("a"), block("a")], /two blocks are called "a"/],
      ["no block", [], /is empty/],
      ["something that is not a block", [null], /null is not \{ idstr: string, length: number \}/],
      ["something that is not an array", "pc.ram", /not an array/]
    ] as ReadonlyArray<[string, any, RegExp]>
  )("refuses %s", (_name, blocks, message) => {
    assert.throws(() => Guest.memory({ blocks }), message)
  })

  it("types a guest as the manual writes it", () => {
    const guest = Guest.memory({
      blocks: [{ idstr: "pc.ram", length: 64 * 2 ** 20 }],
      start: (ctx) => {
        ctx.memory["pc.ram"].fill(7)
      },
      step: (ctx) => {
        ctx.state.steps = (ctx.state.steps ?? 0) + (ctx.options.memoryMiB ?? 0)
      },
      call: (ctx, request) => ({ answer: ctx.memory["pc.ram"][request.at] }),
      save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),
      restore: (ctx, bytes) => {
        ctx.state = JSON.parse(new TextDecoder().decode(bytes))
      }
    })
    assert.deepStrictEqual(guest.blocks, [{ idstr: "pc.ram", length: 64 * 2 ** 20 }])
  })

  it("accepts names of 1 and of 255 bytes", () => {
    const blocks = [block("a"), block("b".repeat(255))]
    assert.deepStrictEqual(Guest.checkBlocks(blocks), blocks)
  })

  it("checks blocks that depend on the options only when it has them", () => {
    assert.strictEqual(Guest.memory({ blocks: () => [] })._tag, "postcopy/Guest.memory")
  })

  it.each(["start", "step", "call", "save", "restore"])("refuses a %s that is not a function", (name) => {
    assert.throws(() => Guest.memory({ blocks: [block("a")], [name]: 1 }), `\`${name}\` is number, not a function`)
  })
})

describe("Guest.wasm", () => {
  it("takes either an instantiate function or a module", () => {
    const instantiate = () => ({ memory, exports: {} })
    assert.strictEqual(Guest.wasm({ instantiate })._tag, "postcopy/Guest.wasm")
    assert.strictEqual(Guest.wasm({ module: new Uint8Array(8), imports: {} })._tag, "postcopy/Guest.wasm")
    assert.throws(() => Guest.wasm({}), /either `instantiate` or `module`/)
    assert.throws(() => Guest.wasm({ instantiate, module: new Uint8Array(8) }), /either/)
    assert.throws(() => Guest.wasm({ instantiate, imports: {} }), /goes with `module`/)
    assert.throws(() => Guest.wasm({ instantiate: 5 as any }), /`instantiate` is number/)
  })

  it.each([0, 65535, 2 ** 32 + 65536, Number.NaN])("refuses a maximum of %d bytes", (maximum) => {
    assert.throws(() => Guest.wasm({ module: new Uint8Array(8), maximum }), /not a multiple of 64 KiB up to 4 GiB/)
  })
})
