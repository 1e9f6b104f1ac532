/**
 * Every kind of case of the benchmarks runs, on both sides, at the least size there is; at that size the others are the
 * same as one of these. What is measured is not looked at: only that there is a figure for everything that is compared.
 */
import { assert, describe, it } from "vitest"
import { all } from "../../bench/Cases.ts"
import { quantile, ratio } from "../../bench/Statistics.ts"

/** Sizes of a MiB. */
const cases = all(4096)

const kinds = [
  "fault-unix",
  "fault-tcp-sleep",
  "fault-unix-contended",
  "loaded-tcp",
  "loaded-unix-own",
  "bulk-fill",
  "sparse",
  "threads-4",
  "rtt-1",
  "size-64"
]

describe("the benchmarks", () => {
  it.each(cases.filter(({ name }) => name !== "qemu"))(
    "$name runs, $about",
    async ({ figures, other, ours, missing }) => {
      assert.isUndefined(missing)
      const [here, there] = [await ours(), await other()]
      for (const { name } of figures) {
        assert.isTrue(Number.isFinite(here[name]), `ours has no ${name}: ${JSON.stringify(here)}`)
        // The floor's source grows by nothing that would be worth a figure.
        if (name === "sourceGrowthKib") continue
        assert.isTrue(Number.isFinite(there[name]), `the other side has no ${name}: ${JSON.stringify(there)}`)
      }
    }
  )

  it("has all of these kinds, and each name once", () => {
    const names = cases.map(({ name }) => name)
    assert.deepStrictEqual(kinds.filter((name) => !names.includes(name)), [])
    assert.strictEqual(new Set(names).size, names.length)
  })

  it("the case against QEMU says what it lacks, or has its figures named", () => {
    const qemu = cases.find(({ name }) => name === "qemu")!
    assert.isTrue(qemu.missing === undefined || qemu.missing.includes("Debian"))
    assert.deepStrictEqual(qemu.figures.map(({ name }) => name), ["totalMs", "blockedUsPerPage"])
  })
})

describe("what pairs say", () => {
  it("is the best against the best, and the median of the pairs with its quartiles", () => {
    assert.deepStrictEqual(ratio([10, 12, 30], [20, 10, 20], "lower"), {
      best: 1,
      median: 1.2,
      quartiles: [0.85, 1.35]
    })
    assert.strictEqual(ratio([1, 4], [2, 2], "higher").best, 2)
    assert.strictEqual(quantile([3, 1, 2, 4], 0.5), 2.5)
  })
})
