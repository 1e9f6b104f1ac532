import { assert, describe, it } from "@effect/vitest"
import * as MemoryMap from "../../src/MemoryMap.ts"
import type { Cells } from "../../src/Observation.ts"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import { PageStates } from "../../src/services/PageStates.ts"

const numbers = (cells: Cells | undefined) => Array.from(Buffer.from(cells!.counts, "base64"))

describe("page states", () => {
  it("tell pages that were asked for from those that came by themselves", () => {
    const states = new PageStates(4)
    states.requested(1)
    states.received(0)
    states.received(1)
    states.requested(2)
    assert.deepStrictEqual(Array.from(states.cells(4).counts), [0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
  })

  it("take pages together that nobody asked for", () => {
    const states = new PageStates(6)
    states.requested(0)
    states.pushed(2, 3)
    assert.deepStrictEqual(Array.from(states.cells(2).counts), [1, 0, 1, 0, 0, 0, 2, 0])
  })

  it("keep what is here when the guest gives it back, and know that the rest will never come", () => {
    const states = new PageStates(4)
    states.received(0)
    states.requested(1)
    states.removed(0, 100)
    assert.deepStrictEqual(Array.from(states.cells(1).counts), [0, 0, 1, 3])
  })

  it("are drawn in runs of equal length, the last one shorter", () => {
    const states = new PageStates(10)
    for (let page = 0; page < 10; page++) states.received(page)
    const { counts, pagesPerCell } = states.cells(3)
    assert.strictEqual(pagesPerCell, 4)
    assert.deepStrictEqual(Array.from(counts), [0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 2, 0])
  })

  it("lie in memory that somebody else may read", () => {
    const buffer = new ArrayBuffer(8)
    new PageStates(8, buffer).requested(7)
    assert.deepStrictEqual(Array.from(new PageStates(8, buffer).cells(2).counts), [0, 0, 0, 0, 1, 0, 0, 0])
    assert.throws(() => new PageStates(9, buffer), RangeError)
  })
})

describe("the map of a source", () => {
  it("counts what is sent over all blocks", () => {
    const [first, second] = [new Bitmap(64), new Bitmap(40)]
    second.setAll()
    second.clear(39)
    assert.deepInclude(MemoryMap.sent([first, second], 1000), { total: 104, pagesPerCell: 32, bits: 8 })
    assert.deepStrictEqual(
      numbers(MemoryMap.sent([first, second], 1000)),
      [0, 0, 32, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    )
    assert.isUndefined(MemoryMap.sent([], 10))
  })
})
