// gatherRanges: many ranges of a region behind one another, with room for headers, and uniform ones as one byte.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Dice } from "./Dice.ts"
import { P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { GATHER_WORDS, gatherRanges, Region } = Uffd
const EBADF = -9
const EFAULT = -14
const ERANGE = -34

describe("gatherRanges", () => {
  it("does what one read a range would do", () => {
    const dice = new Dice(3)
    const region = Region.anonymous(8 * P)
    const content = new Uint8Array(8 * P)
    for (let i = 0; i < 8; i++) {
      if (i % 2 === 0) content.fill(i, i * P, (i + 1) * P)
      else for (let at = i * P; at < (i + 1) * P; at++) content[at] = dice.below(256)
    }
    region.write(0, content, 0, content.length)
    for (let round = 0; round < 200; round++) {
      const count = 1 + dice.below(6)
      const ranges = new Float64Array(count * GATHER_WORDS)
      const into = new Uint8Array(dice.below(3) * P + dice.below(100))
      const expected = into.slice()
      let end = dice.below(20)
      const at = end
      let taken = 0
      for (let i = 0; i < count; i++) {
        const offset = dice.below(8) * P + dice.below(64)
        const length = 1 + dice.below(P - 64)
        const gap = dice.below(16)
        ranges.set([offset, length, gap, 0], i * GATHER_WORDS)
        if (taken < i || end + gap + length > into.length) continue
        const range = content.subarray(offset, offset + length)
        const uniform = range.every((byte) => byte === range[0])
        expected.set(uniform ? range.subarray(0, 1) : range, end + gap)
        end += gap + (uniform ? 1 : length)
        taken++
      }
      assert.strictEqual(gatherRanges(region, ranges, count, into, at), taken)
      // Nothing is written to a gap. A uniform range may have been tried out behind its byte.
      for (let i = 0, position = at; i < taken; i++) {
        const [, length, gap, fill] = ranges.subarray(i * GATHER_WORDS, (i + 1) * GATHER_WORDS)
        const size = fill! >= 0 ? 1 : length!
        const start = position + gap!
        assert.deepStrictEqual(into.subarray(start, start + size), expected.subarray(start, start + size))
        assert.isTrue(into.subarray(position, start).every((byte) => byte === 0))
        position = start + size
      }
    }
    region.close()
  })

  it("stops at a range that it cannot read, and says why when that is the first", () => {
    const region = Region.anonymous(2 * P)
    region.write(0, page(1), 0, P)
    const into = new Uint8Array(4 * P)
    const outside = Float64Array.from([[0, P, 0, 0], [P, 2 * P, 0, 0]].flat())
    assert.strictEqual(gatherRanges(region, outside, 2, into, 0), 1)
    assert.strictEqual(outside[3], 1)
    assert.strictEqual(gatherRanges(region, outside.slice(4), 1, into, 0), ERANGE)
    region.protectNone(P, P)
    assert.strictEqual(gatherRanges(region, Float64Array.of(P, P, 0, 0), 1, into, 0), EFAULT)
    assert.strictEqual(codeOf(() => gatherRanges(region, outside, 3, into, 0)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(gatherRanges(region, outside, 1, into, 2 ** 53 - 1), 0)
    region.close()
    assert.strictEqual(gatherRanges(region, outside, 1, into, 0), EBADF)
  })
})
