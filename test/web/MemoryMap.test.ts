/** What the map of the page makes of the counts it gets; the browser's own modules, without a browser. */
import { assert, describe, it } from "@effect/vitest"
// @ts-expect-error a plain module of the browser's
import { asked, decode, describe as inWords, legend, totals } from "../../src/web/assets/map.js"

/** Of each cell: requested, received on demand, in the background, removed. */
const map = (cells: ReadonlyArray<readonly [number, number, number, number]>, bits: 8 | 16 | 32 = 8) => {
  const Numbers = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array }[bits]
  const counts = Buffer.from(new Numbers(cells.flat()).buffer).toString("base64")
  return decode({ total: cells.length * 4 - 1, pagesPerCell: 4, bits, counts })
}

describe("the map of the page", () => {
  it("counts what there is of each kind, however wide the counts are; the rest is missing", () => {
    for (const bits of [8, 16, 32] as const) {
      assert.deepStrictEqual(totals(map([[1, 2, 0, 0], [0, 0, 3, 1]], bits)), {
        missing: 0,
        requested: 1,
        onDemand: 2,
        background: 3,
        removed: 1
      })
    }
    assert.strictEqual(totals(map([[0, 0, 0, 0], [0, 0, 1, 0]])).missing, 6)
  })

  it("lets the cells flash in which the guest has asked for a page since, and no others", () => {
    const before = map([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    const after = map([
      [1, 0, 0, 0], // asked for, not answered
      [0, 1, 0, 0], // what was asked for before has come
      [0, 2, 0, 0], // asked for and answered between two pictures
      [0, 0, 4, 0] // nobody asked
    ])
    assert.deepStrictEqual(asked(before, after), [0, 2])
    assert.deepStrictEqual(asked(undefined, after), [], "the first picture is no news")
    assert.deepStrictEqual(asked(map([[0, 0, 0, 0]]), after), [], "another guest's map")
  })

  it("says in words what the colours mean", () => {
    const shown = map([[1, 2, 1, 0], [0, 0, 2, 1]])
    const words = (source: boolean) =>
      legend(shown, source).replaceAll(/<li>.*?<\/i>(.*?) <b>(.*?)<\/b><\/li>/g, "$1 $2, ")
    assert.strictEqual(
      words(false),
      "missing 0, requested 1, received on demand 2, received in background 3, removed 1, "
    )
    assert.strictEqual(words(true), "not sent yet 0, sent 3, ")
    assert.strictEqual(
      inWords(shown, 4096),
      "7 pages in 2 cells, 4 pages (16 KiB) each, in the order of their addresses"
    )
  })
})
