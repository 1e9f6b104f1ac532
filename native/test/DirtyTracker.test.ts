// Which pages were written: against a model of random writes, on each kind of memory, and the scan underneath.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Dice } from "./Dice.ts"
import { has, P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"
import { wasmMemory } from "./WasmMemory.ts"

const { constants, DirtyTracker, Region, RUN_WORDS } = Uffd

const kinds: ReadonlyArray<readonly [name: string, make: (pages: number) => Uffd.Region]> = [
  ["anonymous memory", (pages) => Region.anonymous(pages * P)],
  ["a memfd", (pages) => Region.memfd("tracked", pages * P)],
  ["a WebAssembly.Memory", (pages) => Region.ofBuffer(wasmMemory(pages * P / 65536, pages * P / 65536).buffer)]
]

describe.skipIf(!has(constants.FEATURE_WP_ASYNC))("DirtyTracker", () => {
  for (const [name, make] of kinds) {
    it(`finds what was written to ${name}, each write in exactly one result`, () => {
      const pages = 256
      const region = make(pages)
      const tracker = new DirtyTracker(region)
      const dice = new Dice(77)
      let dirty = new Set<number>()
      for (let round = 0; round < 60; round++) {
        for (let i = dice.below(40); i > 0; i--) {
          const index = dice.below(pages)
          region.write(index * P + dice.below(P), Uint8Array.of(1), 0, 1)
          dirty.add(index)
        }
        const runs = Uffd.runsOf([...dirty]).map((number) => number * P)
        assert.deepStrictEqual(tracker.get(), runs)
        if (dice.below(2) === 0) continue
        assert.deepStrictEqual(tracker.getAndReprotect(), runs)
        dirty = new Set()
        assert.deepStrictEqual(tracker.get(), new Float64Array(0))
      }
      tracker.close()
      region.close()
    })
  }

  it("finds more runs than one scan takes", () => {
    const pages = 6000
    const region = Region.anonymous(pages * P)
    const tracker = new DirtyTracker(region)
    for (let index = 0; index < pages; index += 2) region.write(index * P, Uint8Array.of(1), 0, 1)
    const expected = Float64Array.from({ length: pages }, (_, i) => i % 2 === 0 ? i * P : P)
    assert.deepStrictEqual(tracker.getAndReprotect(), expected)
    assert.strictEqual(tracker.get().length, 0)
    tracker.close()
    region.close()
  })

  it("sees the writes of other threads, and no reads", async () => {
    const region = Region.anonymous(4 * P)
    const tracker = new DirtyTracker(region)
    const toucher = await Toucher.start(region)
    assert.strictEqual(await toucher.byte(0), 0)
    assert.strictEqual(await toucher.run({ kind: "write", offset: P, bytes: page(1) }), P)
    assert.deepStrictEqual([...tracker.get()], [P, P])
    await toucher.end()
    tracker.close()
    region.close()
  })

  it("ends with its close, and the region is free for another", () => {
    const region = Region.anonymous(P)
    const tracker = new DirtyTracker(region)
    assert.strictEqual(codeOf(() => new DirtyTracker(region)), "EBUSY")
    assert.isFalse(tracker.closed)
    tracker.close()
    tracker.close()
    assert.isTrue(tracker.closed)
    assert.strictEqual(codeOf(() => tracker.get()), "EBADF")
    const next = new DirtyTracker(region)
    region.close()
    assert.strictEqual(next.getAndReprotect().length, 0)
    next.close()
    assert.strictEqual(codeOf(() => new DirtyTracker(region)), "EFAULT")
    assert.strictEqual(codeOf(() => new DirtyTracker({} as Uffd.Region)), "ERR_INVALID_ARG_TYPE")
  })
})

describe.skipIf(!has(constants.FEATURE_WP_ASYNC))("scanPages", () => {
  const runsOf = (region: Uffd.Region, into: Float64Array, runs: number) =>
    Array.from({ length: runs }, (_, i) => {
      const [start, end, categories] = into.subarray(i * RUN_WORDS, (i + 1) * RUN_WORDS)
      return [(start! - region.address) / P, (end! - region.address) / P, categories]
    })

  it("tells categories, stops where the array is full or enough was found, and goes on from there", () => {
    const region = Region.anonymous(8 * P)
    for (const index of [1, 3, 4, 6]) region.write(index * P, page(1), 0, P)
    const pagemap = Uffd.openPagemap()
    const into = new Float64Array(2 * RUN_WORDS)
    const options = { required: constants.PAGE_IS_PRESENT }
    const scan = (from: number, more: Uffd.ScanOptions = options) =>
      Uffd.scanPages(pagemap, region.address + from * P, (8 - from) * P, more, into)
    const first = scan(0)
    assert.strictEqual(first.runs, 2)
    assert.deepStrictEqual(runsOf(region, into, 2), [[1, 2, options.required], [3, 5, options.required]])
    const stopped = (first.end - region.address) / P
    assert.isAtMost(stopped, 6)
    const second = scan(stopped)
    assert.deepStrictEqual(runsOf(region, into, second.runs), [[6, 7, options.required]])
    assert.strictEqual(second.end, region.address + 8 * P)
    // Turned round: what is absent.
    assert.strictEqual(scan(7, { ...options, inverted: constants.PAGE_IS_PRESENT }).runs, 1)
    assert.strictEqual(scan(6, { ...options, inverted: constants.PAGE_IS_PRESENT }).runs, 1)
    assert.strictEqual(scan(0, { anyOf: constants.PAGE_IS_PRESENT + constants.PAGE_IS_SWAPPED, mostPages: 1 }).runs, 1)
    assert.deepStrictEqual(runsOf(region, into, 1)[0]!.slice(0, 2), [1, 2])
    pagemap.close()
    region.close()
  })

  it("protects nothing that is not tracked, and scans nothing but pagemaps", () => {
    const region = Region.anonymous(2 * P)
    const pagemap = Uffd.openPagemap()
    const into = new Float64Array(RUN_WORDS)
    const scan = (descriptor: Uffd.Descriptor, length: number, options: Uffd.ScanOptions) =>
      Uffd.scanPages(descriptor, region.address, length, options, into)
    const at = { end: region.address }
    assert.deepStrictEqual(scan(pagemap, 2 * P, { reprotect: true }), { runs: -1, ...at })
    assert.strictEqual(region.write(0, page(1), 0, P), P)
    assert.deepStrictEqual(scan(pagemap, P, { required: 2 ** 40 }), { runs: -22, ...at })
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.deepStrictEqual(scan(a, P, {}), { runs: -25, ...at })
    pagemap.close()
    assert.deepStrictEqual(scan(pagemap, P, {}), { runs: -9, ...at })
    assert.strictEqual(codeOf(() => Uffd.openPagemap(2 ** 31 - 1)), "ENOENT")
    for (const owner of [a, b, region]) owner.close()
  })
})
