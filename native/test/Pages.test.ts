// The arithmetic of pages, which has to be exact beyond 32 bits.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Dice } from "./Dice.ts"
import { P } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { alignDown, alignUp, pagesCovering, pagesWithin, runsOf } = Uffd
const far = 2 ** 47 - 1

describe("page ranges", () => {
  it("are aligned exactly, also above 2^32", () => {
    for (const base of [0, P, 2 ** 32, 2 ** 46]) {
      assert.strictEqual(alignDown(base), base)
      assert.strictEqual(alignUp(base), base)
      assert.strictEqual(alignDown(base + P - 1), base)
      assert.strictEqual(alignUp(base + 1), base + P)
    }
    assert.strictEqual(alignDown(far, 2 ** 21), 2 ** 47 - 2 ** 21)
    assert.strictEqual(alignUp(far, 2 ** 21), 2 ** 47)
  })

  it("cover what they should and lie within what they should", () => {
    const dice = new Dice(5)
    for (let i = 0; i < 2000; i++) {
      const pageSize = dice.one([4096, 16384, 2 ** 21])
      const start = dice.below(2 ** 30) * dice.one([1, 4096, 65537])
      const length = dice.below(5 * pageSize)
      const outer = pagesCovering(start, length, pageSize)
      const inner = pagesWithin(start, length, pageSize)
      for (const { address, length } of [outer, inner]) assert.strictEqual(address % pageSize + length % pageSize, 0)
      if (length === 0) {
        assert.deepStrictEqual([outer.length, inner.length], [0, 0])
        continue
      }
      assert.isTrue(outer.address <= start && start - outer.address < pageSize)
      const end = outer.address + outer.length
      assert.isTrue(end >= start + length && end - start - length < pageSize)
      if (inner.length === 0) assert.isBelow(length, 2 * pageSize)
      else assert.isTrue(inner.address >= start && inner.address + inner.length <= start + length)
    }
  })

  it("refuse what is not exact", () => {
    for (const value of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
      assert.strictEqual(codeOf(() => alignDown(value)), "ERR_OUT_OF_RANGE")
      assert.strictEqual(codeOf(() => pagesCovering(0, value)), "ERR_OUT_OF_RANGE")
      assert.strictEqual(codeOf(() => pagesWithin(value, 1)), "ERR_OUT_OF_RANGE")
      assert.strictEqual(codeOf(() => runsOf([value])), "ERR_OUT_OF_RANGE")
      assert.strictEqual(codeOf(() => alignDown(0, value)), "ERR_OUT_OF_RANGE")
    }
    assert.strictEqual(codeOf(() => alignUp(2 ** 53 - 1)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => pagesCovering(2 ** 53 - 1, 2)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => alignDown(0, 3 * P)), "ERR_OUT_OF_RANGE")
    for (const wrong of [undefined, null, "1", 1n, {}]) {
      assert.strictEqual(codeOf(() => alignUp(wrong as number)), "ERR_INVALID_ARG_TYPE")
      assert.strictEqual(codeOf(() => runsOf([wrong as number])), "ERR_INVALID_ARG_TYPE")
    }
    for (const wrong of [undefined, null, 1, {}, new DataView(new ArrayBuffer(8))]) {
      assert.strictEqual(codeOf(() => runsOf(wrong as unknown as ArrayLike<number>)), "ERR_INVALID_ARG_TYPE")
    }
  })

  it("come as runs of page numbers, however those are ordered", () => {
    assert.deepStrictEqual([...runsOf([])], [])
    assert.deepStrictEqual([...runsOf([7])], [7, 1])
    assert.deepStrictEqual([...runsOf(Float64Array.of(10, 9, 2, 11, 9, 3))], [2, 2, 9, 3])
    assert.deepStrictEqual([...runsOf([2 ** 40, 2 ** 40 + 1])], [2 ** 40, 2])
  })
})
