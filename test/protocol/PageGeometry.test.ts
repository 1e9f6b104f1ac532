import { assert, describe, it } from "@effect/vitest"
import { PageGeometry } from "../../src/protocol/PageGeometry.ts"

/** All pages of one size that overlap a page of another, by bytes. */
const overlapping = (length: number, page: number, size: number, other: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let i = 0; i * other < length; i++) {
    if (i * other < Math.min((page + 1) * size, length) && (i + 1) * other > page * size) found.push(i)
  }
  return found
}
const range = ([first, count]: readonly [number, number]) => Array.from({ length: count }, (_, i) => first + i)

describe("page geometry", () => {
  for (const [target, host] of [[4096, 4096], [8192, 4096], [4096, 16384], [4096, 65536], [16384, 4096]] as const) {
    it(`a page of ${target} bytes overlaps those of ${host} bytes as their bytes do, up to the block's end`, () => {
      for (let length = 0; length <= 40 * 4096; length += 4096) {
        if (length % target !== 0) continue
        const geometry = new PageGeometry(length, target, host)
        assert.strictEqual(geometry.targetPages, Math.ceil(length / target))
        assert.strictEqual(geometry.hostPages, Math.ceil(length / host))
        for (let h = 0; h < geometry.hostPages; h++) {
          assert.deepStrictEqual(range(geometry.hostToTargets(h)), overlapping(length, h, host, target))
        }
        for (let t = 0; t < geometry.targetPages; t++) {
          assert.deepStrictEqual(range(geometry.targetToHosts(t)), overlapping(length, t, target, host))
        }
      }
    })
  }
  it("B31: with target pages twice the host's, host pages 3 and 2 are both of target page 1", () => {
    const geometry = new PageGeometry(0x10000, 8192, 4096)
    assert.deepStrictEqual(geometry.hostToTargets(3), [1, 1])
    assert.deepStrictEqual(geometry.hostToTargets(2), [1, 1])
    assert.deepStrictEqual(geometry.targetToHosts(1), [2, 2])
  })
  it("B33: the last host page consists of the target pages that exist", () => {
    const geometry = new PageGeometry(5 * 4096, 4096, 65536)
    assert.strictEqual(geometry.hostPages, 1)
    assert.deepStrictEqual(geometry.hostToTargets(0), [0, 5])
  })
  it("blocks above 2^32 pages of bytes keep their page numbers", () => {
    const geometry = new PageGeometry(2 ** 50, 4096, 65536)
    assert.deepStrictEqual(geometry.hostToTargets(2 ** 34 - 1), [2 ** 38 - 16, 16])
    assert.deepStrictEqual(geometry.targetToHosts(2 ** 38 - 1), [2 ** 34 - 1, 1])
  })
  it("sizes that are no powers of two are refused", () => {
    for (const size of [0, -4096, 3000, 4096.5, NaN, Infinity]) {
      assert.throws(() => new PageGeometry(4096, size, 4096), RangeError)
      assert.throws(() => new PageGeometry(4096, 4096, size), RangeError)
    }
    for (const length of [-1, 0.5, NaN, 2 ** 53]) assert.throws(() => new PageGeometry(length, 4096, 4096), RangeError)
  })
})
