// installPages: what one call does with many pages, how it stops and how it goes on.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Bursts } from "./Bursts.ts"
import { Dice } from "./Dice.ts"
import { readable } from "./GuestProcess.ts"
import { anonymous, available, type Guest, guest, has, P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Region, VECTOR_WORDS } = Uffd
const { INSTALL_CONTINUE, INSTALL_COPY, INSTALL_DONTWAKE, INSTALL_POISON, INSTALL_WP, INSTALL_ZERO } = constants
const EAGAIN = -11
const EEXIST = -17
const EFAULT = -14
const EINVAL = -22
const ENOENT = -2

interface Entry {
  readonly address: number
  readonly source?: number
  readonly length?: number
  readonly kind?: number
}

const vectorOf = (entries: ReadonlyArray<Entry>): Float64Array =>
  Float64Array.from(entries.flatMap(({ address, kind = INSTALL_COPY, length = P, source = 0 }) => [
    address,
    source,
    length,
    kind,
    0,
    0
  ]))

const install = (g: Guest, vector: Float64Array, source: Uint8Array, from = 0): number =>
  Uffd.installPages(g.uffd, vector, from, vector.length / VECTOR_WORDS, source)

const doneOf = (vector: Float64Array, index: number) => vector[index * VECTOR_WORDS + 4]
const statusOf = (vector: Float64Array, index: number) => vector[index * VECTOR_WORDS + 5]

/** The byte that fills each page, -1 when they differ. */
const fills = (g: Guest, pages: ReadonlyArray<number>) => pages.map((index) => g.region.fillByte(index * P, P))

describe.skipIf(!available)("a vector", () => {
  it("installs scattered pages of each kind out of one buffer", () => {
    using g = anonymous(16, constants.FEATURE_POISON)
    const source = new Uint8Array(3 * P + 24).fill(1, 8, P + 8).fill(2, P + 16, 2 * P + 16)
    const vector = vectorOf([
      { address: g.at(9), source: 8 },
      { address: g.at(3), source: P + 16 },
      { address: g.at(5), length: 3 * P, kind: INSTALL_ZERO },
      { address: g.at(12), kind: INSTALL_POISON }
    ])
    assert.strictEqual(install(g, vector, source), 4)
    assert.deepStrictEqual(fills(g, [9, 3, 5, 6, 7]), [1, 2, 0, 0, 0])
    for (let i = 0; i < 4; i++) assert.strictEqual(doneOf(vector, i), vector[i * VECTOR_WORDS + 2])
    // Poison is not "present": a copy over it succeeds.
    assert.strictEqual(Uffd.copy(g.uffd, g.at(12), page(3), 0, P, 0), P)
  })

  it("makes one run of neighbours, whose bytes lie between a stream's headers", () => {
    using g = anonymous(200)
    const header = 9
    const count = 200
    const source = new Uint8Array(count * (P + header))
    for (let i = 0; i < count; i++) source.fill(i % 251 + 1, i * (P + header) + header, (i + 1) * (P + header))
    const vector = vectorOf(Array.from({ length: count }, (_, i) => ({
      address: g.at(i),
      source: i * (P + header) + header
    })))
    assert.strictEqual(install(g, vector, source), count)
    assert.deepStrictEqual(
      fills(g, Array.from({ length: count }, (_, i) => i)),
      Array.from({ length: count }, (_, i) => i % 251 + 1)
    )
  })

  it("takes neighbours in the source as they lie", () => {
    using g = anonymous(100)
    const source = new Uint8Array(100 * P)
    for (let i = 0; i < 100; i++) source.fill(i + 1, i * P, (i + 1) * P)
    const vector = vectorOf(Array.from({ length: 100 }, (_, i) => ({ address: g.at(i), source: i * P })))
    assert.strictEqual(install(g, vector, source), 100)
    assert.deepStrictEqual(fills(g, [0, 50, 99]), [1, 51, 100])
  })

  it("counts present pages as done, says so, and installs the rest around them", () => {
    using g = anonymous(8)
    for (const index of [0, 3, 4, 7]) Uffd.copy(g.uffd, g.at(index), page(99), 0, P, 0)
    const vector = vectorOf([
      ...[0, 1, 2, 3].map((index) => ({ address: g.at(index), source: index * P })),
      { address: g.at(4), source: 4 * P, length: 4 * P }
    ])
    const source = new Uint8Array(8 * P).map((_, i) => Math.floor(i / P) + 1)
    assert.strictEqual(install(g, vector, source), 5)
    assert.deepStrictEqual(fills(g, [0, 1, 2, 3, 4, 5, 6, 7]), [99, 2, 3, 99, 99, 6, 7, 99])
    assert.deepStrictEqual([0, 1, 2, 3, 4].map((i) => statusOf(vector, i)), [EEXIST, 0, 0, EEXIST, EEXIST])
    const zeros = vectorOf([{ address: g.at(0), length: 8 * P, kind: INSTALL_ZERO }])
    assert.strictEqual(install(g, zeros, source), 1)
  })

  it("wakes who waits for a page that is present, unless told not to", async () => {
    using g = anonymous(1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await bursts.fault()
    Uffd.copy(g.uffd, g.at(0), page(5), 0, P, constants.COPY_DONTWAKE)
    const silent = vectorOf([{ address: g.at(0), kind: INSTALL_COPY + INSTALL_DONTWAKE }])
    assert.strictEqual(install(g, silent, page(1)), 1)
    assert.strictEqual(install(g, vectorOf([{ address: g.at(0) }]), page(1)), 1)
    assert.strictEqual(await byte, 5)
    bursts.close()
    await toucher.end()
  })

  it("stops at a queued removal and goes on with the same array once it is read", async () => {
    using g = anonymous(8, constants.FEATURE_EVENT_REMOVE)
    const toucher = await Toucher.start(g.region)
    const removed = toucher.run({ kind: "madvise", offset: 6 * P, length: P, advice: constants.MADV_DONTNEED })
    await readable(g.uffd)
    const vector = vectorOf([{ address: g.at(0) }, { address: g.at(2) }])
    const source = page(8)
    assert.strictEqual(install(g, vector, source), 0)
    assert.deepStrictEqual([doneOf(vector, 0), statusOf(vector, 0), statusOf(vector, 1)], [0, EAGAIN, 0])
    assert.strictEqual(Uffd.readEvents(g.uffd, new Float64Array(8)), 1)
    assert.strictEqual(await removed, 0)
    assert.strictEqual(install(g, vector, source), 2)
    assert.deepStrictEqual([statusOf(vector, 0), statusOf(vector, 1)], [0, 0])
    assert.deepStrictEqual(fills(g, [0, 2]), [8, 8])
    await toucher.end()
  })

  it("names the entry at fault in a run, with those before it done", () => {
    const uffd = Uffd.open({ userModeOnly: true }).descriptor
    const region = Region.anonymous(4 * P)
    Uffd.register(uffd, region.address, 2 * P, constants.MODE_MISSING)
    const at = (index: number) => region.address + index * P
    const vector = vectorOf([0, 1, 2, 3].map((index) => ({ address: at(index), source: index * P })))
    const source = page(4, 4)
    assert.strictEqual(Uffd.installPages(uffd, vector, 0, 4, source), 2)
    assert.deepStrictEqual([0, 1, 2, 3].map((i) => doneOf(vector, i)), [P, P, 0, 0])
    assert.deepStrictEqual([0, 1, 2, 3].map((i) => statusOf(vector, i)), [0, 0, ENOENT, 0])
    // The range comes to life: the same array, from where it stopped.
    Uffd.register(uffd, at(2), 2 * P, constants.MODE_MISSING)
    assert.strictEqual(Uffd.installPages(uffd, vector, 2, 4, source), 2)
    assert.strictEqual(region.fillByte(0, 4 * P), 4)
    uffd.close()
    region.close()
  })

  it("goes on within an entry that was done in part", () => {
    using g = anonymous(4)
    const source = new Uint8Array(4 * P).map((_, i) => Math.floor(i / P) + 1)
    const vector = vectorOf([{ address: g.at(0), length: 4 * P }])
    vector[4] = 2 * P
    assert.strictEqual(install(g, vector, source), 1)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(9, 2), 0, 2 * P, 0), 2 * P)
    assert.deepStrictEqual(fills(g, [0, 1, 2, 3]), [9, 9, 3, 4])
  })

  it("continues pages that the memfd has and stops at one that it lacks", () => {
    using g = guest({
      region: Region.memfd("vector", 4 * P),
      required: constants.FEATURE_MINOR_SHMEM | constants.FEATURE_MISSING_SHMEM,
      mode: constants.MODE_MISSING | constants.MODE_MINOR
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, 4 * P)
    view.write(0, page(3, 2), 0, 2 * P)
    const vector = vectorOf([0, 1, 2].map((index) => ({ address: g.at(index), kind: INSTALL_CONTINUE })))
    assert.strictEqual(install(g, vector, new Uint8Array(0)), 2)
    assert.strictEqual(statusOf(vector, 2), EFAULT)
    assert.deepStrictEqual(fills(g, [0, 1]), [3, 3])
    view.close()
    file.close()
  })

  it.skipIf(!has(constants.FEATURE_PAGEFAULT_FLAG_WP))("protects what it installs when told to", async () => {
    using g = guest({
      region: Region.anonymous(P),
      required: constants.FEATURE_PAGEFAULT_FLAG_WP,
      mode: constants.MODE_MISSING | constants.MODE_WP
    })
    assert.strictEqual(install(g, vectorOf([{ address: g.at(0), kind: INSTALL_COPY + INSTALL_WP }]), page(2)), 1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const written = toucher.run({ kind: "write", offset: 0, bytes: page(1) })
    const [event] = await bursts.take(1)
    assert.strictEqual(event!.a & constants.PAGEFAULT_FLAG_WP, constants.PAGEFAULT_FLAG_WP)
    Uffd.writeProtect(g.uffd, g.at(0), P, 0)
    assert.strictEqual(await written, P)
    bursts.close()
    await toucher.end()
  })

  it("reports what the kernel refuses, with nothing done", () => {
    using g = anonymous(2)
    const odd = vectorOf([{ address: g.at(0) + 1 }])
    assert.strictEqual(install(g, odd, page(1)), 0)
    assert.strictEqual(statusOf(odd, 0), EINVAL)
    const part = vectorOf([{ address: g.at(0) }, { address: g.at(1), length: 100 }])
    assert.strictEqual(install(g, part, page(1)), 1)
    assert.strictEqual(statusOf(part, 1), EINVAL)
    assert.strictEqual(install(g, vectorOf([{ address: g.at(1), length: 0 }]), page(1)), 1)
    g.uffd.close()
    assert.strictEqual(install(g, vectorOf([{ address: g.at(1) }]), page(1)), -9)
  })

  it("refuses entries that could never be carried out before it does anything", () => {
    using g = anonymous(2)
    const good = [g.at(0), 0, P, INSTALL_COPY, 0, 0]
    const wrong: ReadonlyArray<readonly [word: number, value: number]> = [
      [0, NaN],
      [0, -1],
      [0, 2 ** 53],
      [1, 0.5],
      [1, 1],
      [1, Infinity],
      [2, P + 1],
      [2, 2 ** 52],
      [2, -P],
      [3, 4],
      [3, INSTALL_WP + INSTALL_ZERO],
      [3, 0.5],
      [4, P + 1],
      [4, -1],
      [4, NaN]
    ]
    for (const [word, value] of wrong) {
      const vector = Float64Array.of(...good, ...good)
      vector[VECTOR_WORDS + word] = value
      assert.strictEqual(codeOf(() => install(g, vector, page(1))), "ERR_OUT_OF_RANGE", `word ${word} is ${value}`)
    }
    const vector = Float64Array.from(good)
    for (const [from, to] of [[0, 2], [1, 0], [2, 2]] as const) {
      assert.strictEqual(codeOf(() => Uffd.installPages(g.uffd, vector, from, to, page(1))), "ERR_OUT_OF_RANGE")
    }
    for (const size of [0, 1, P - 1, 3 * P]) {
      assert.strictEqual(codeOf(() => Uffd.installPages(g.uffd, vector, 0, 1, page(1), size)), "ERR_OUT_OF_RANGE")
    }
    // Nothing was installed.
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(9), 0, P, 0), P)
  })

  it("does for random entries what one call a page would do", () => {
    const dice = new Dice(20251125)
    const below = (limit: number) => dice.below(limit)
    const pages = 64
    for (let round = 0; round < 40; round++) {
      using g = anonymous(pages)
      const expected = new Map<number, number>()
      const source = new Uint8Array(pages * (P + 16))
      let used = 0
      const put = (index: number, byte: number) => {
        if (!expected.has(index)) expected.set(index, byte)
      }
      for (let i = below(10); i > 0; i--) {
        const index = below(pages)
        if (Uffd.copy(g.uffd, g.at(index), page(200), 0, P, 0) === P) put(index, 200)
      }
      const entries: Array<Entry> = []
      let next = 0
      for (let i = 0; i < 30; i++) {
        const index = below(3) === 0 ? below(pages) : next % pages
        const count = Math.min(1 + below(3), pages - index)
        next = index + count
        if (below(4) === 0) {
          entries.push({ address: g.at(index), length: count * P, kind: INSTALL_ZERO })
          for (let k = 0; k < count; k++) put(index + k, 0)
          continue
        }
        used += below(2) * 8
        if (used + count * P > source.length) break
        entries.push({ address: g.at(index), source: used, length: count * P })
        for (let k = 0; k < count; k++) {
          const byte = 1 + below(150)
          source.fill(byte, used, used + P)
          used += P
          put(index + k, byte)
        }
      }
      const vector = vectorOf(entries)
      assert.strictEqual(install(g, vector, source), entries.length)
      for (const [index, byte] of expected) assert.strictEqual(g.region.fillByte(index * P, P), byte)
      // And nothing else.
      for (let index = 0; index < pages; index++) {
        if (!expected.has(index)) assert.strictEqual(Uffd.zeropage(g.uffd, g.at(index), P, 0), P)
      }
    }
  })
})
