import { assert, describe, it } from "@effect/vitest"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import { random } from "./Streams.ts"

describe("bitmap", () => {
  it("behaves as a set of page numbers", () => {
    const next = random(4)
    for (const length of [1, 31, 32, 33, 64, 100, 1000]) {
      const bitmap = new Bitmap(length)
      const set = new Set<number>()
      for (let i = 0; i < 2000; i++) {
        const page = Math.floor(next() * length)
        switch (Math.floor(next() * 5)) {
          case 0:
            assert.strictEqual(bitmap.testAndSet(page), set.has(page))
            set.add(page)
            break
          case 1:
            assert.strictEqual(bitmap.testAndClear(page), set.has(page))
            set.delete(page)
            break
          case 2:
            assert.strictEqual(bitmap.test(page), set.has(page))
            break
          case 3: {
            const after = [...set].filter((other) => other >= page)
            assert.strictEqual(bitmap.nextSet(page), after.length === 0 ? -1 : Math.min(...after))
            break
          }
          case 4: {
            let clear = page
            while (set.has(clear)) clear++
            assert.strictEqual(bitmap.nextClear(page), clear < length ? clear : -1)
          }
        }
        assert.strictEqual(bitmap.count, set.size)
      }
    }
  })
  it("sets and clears runs as page by page, wherever they begin and end", () => {
    const length = 100
    for (const first of [0, 1, 31, 32, 33, 60, 63, 64, 99]) {
      for (const count of [0, 1, 2, 31, 32, 33, 40, 64]) {
        if (first + count > length) continue
        const [runs, pages] = [new Bitmap(length), new Bitmap(length)]
        runs.setRun(first, count)
        for (let page = first; page < first + count; page++) pages.set(page)
        assert.deepStrictEqual([runs.words, runs.count], [pages.words, pages.count])
        for (const bitmap of [runs, pages]) bitmap.setAll()
        runs.clearRun(first, count)
        for (let page = first; page < first + count; page++) pages.clear(page)
        assert.deepStrictEqual([runs.words, runs.count], [pages.words, pages.count])
      }
    }
  })
  it("L5: setAll sets the pages that exist and no bit beyond them", () => {
    for (const length of [0, 1, 31, 32, 33, 63, 64, 65]) {
      const bitmap = new Bitmap(length)
      bitmap.setAll()
      assert.strictEqual(bitmap.count, length)
      assert.strictEqual(bitmap.nextClear(0), -1)
      assert.strictEqual(bitmap.nextSet(length), -1)
      assert.isFalse(bitmap.test(length))
      const bits = [...bitmap.words].reduce((sum, word) => sum + word.toString(2).replaceAll("0", "").length, 0)
      assert.strictEqual(bits, length)
      let walked = 0
      for (let page = bitmap.nextSet(0); page >= 0; page = bitmap.nextSet(page + 1)) walked++
      assert.strictEqual(walked, length)
      bitmap.clearAll()
      assert.strictEqual(bitmap.count, 0)
      assert.strictEqual(bitmap.nextSet(0), -1)
    }
  })
  it("a page outside the bitmap is clear and stays so", () => {
    const bitmap = new Bitmap(40)
    for (const page of [40, 63, 64, 1000, 2 ** 32, 2 ** 32 + 3, 2 ** 53, -1, Infinity, NaN]) {
      assert.isFalse(bitmap.test(page))
      assert.isFalse(bitmap.testAndSet(page))
      assert.isFalse(bitmap.test(page))
      assert.isFalse(bitmap.testAndClear(page))
    }
    assert.strictEqual(bitmap.count, 0)
    assert.strictEqual(bitmap.nextSet(0), -1)
    assert.strictEqual(bitmap.nextSet(2 ** 32), -1)
  })
})
