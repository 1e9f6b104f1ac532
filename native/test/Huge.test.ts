// Huge pages of 2 MiB. The tests add a few to the host's pool and take them back; others may do the same meanwhile, so
// no number of the pool is taken for granted.
import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { Bursts } from "./Bursts.ts"
import { readable } from "./GuestProcess.ts"
import { available, guest, has, P } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Region } = Uffd
const H = 2 * 1024 * 1024
const NEEDED = 8
const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

const add = (pages: number): boolean => {
  try {
    fs.writeFileSync(pool, String(Number(fs.readFileSync(pool, "utf8")) + pages))
    return true
  } catch {
    return false
  }
}
const writable = ((): boolean => {
  try {
    fs.accessSync(pool, fs.constants.W_OK)
    return process.getuid?.() === 0
  } catch {
    return false
  }
})()
const usable = available && writable && has(constants.FEATURE_MISSING_HUGETLBFS)

const full = (byte: number) => new Uint8Array(H).fill(byte)
const minor = constants.FEATURE_MINOR_HUGETLBFS

describe.skipIf(!usable)("huge pages", () => {
  beforeAll(() => {
    assert.isTrue(add(NEEDED))
  })
  afterAll(() => {
    add(-NEEDED)
  })

  it("are mapped private and as a memfd, and know their size", () => {
    for (const region of [Region.anonymous(2 * H, { hugetlb: H }), Region.memfd("huge", 2 * H, { hugetlb: H })]) {
      assert.strictEqual(region.pageSize, H)
      assert.strictEqual(region.length, 2 * H)
      assert.strictEqual(region.write(H - 1, new Uint8Array([1, 2]), 0, 2), 2)
      // Parts of a huge page are not given back.
      assert.strictEqual(region.madvise(0, P, constants.MADV_DONTNEED), -22)
      region.close()
    }
    const memfd = Region.memfd("huge", 2 * H, { hugetlb: H })
    const file = memfd.descriptor()!
    assert.strictEqual(codeOf(() => Region.map(file, 0, H + P)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Region.map(file, P, H)), "ERR_OUT_OF_RANGE")
    const view = Region.map(file, H, H)
    assert.strictEqual(view.pageSize, H)
    for (const owner of [view, file, memfd]) owner.close()
  })

  it("are copied whole, and zeros are copied too, for there is no ZEROPAGE", async () => {
    using g = guest({
      region: Region.anonymous(3 * H, { hugetlb: H }),
      required: constants.FEATURE_MISSING_HUGETLBFS
    })
    const at = (index: number) => g.region.address + index * H
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(H + 12345)
    assert.strictEqual(await bursts.fault(), at(1))
    assert.strictEqual(Uffd.copy(g.uffd, at(1), full(7), 0, P, 0), -22)
    assert.strictEqual(Uffd.copy(g.uffd, at(1), full(7), 0, H, 0), H)
    assert.strictEqual(await byte, 7)
    assert.strictEqual(Uffd.zeropage(g.uffd, at(0), H, 0), -22)
    const { INSTALL_COPY, INSTALL_ZERO } = constants
    const vector = Float64Array.from([
      [at(0), 0, 2 * H, INSTALL_ZERO, 0, 0],
      [at(2), 0, H, INSTALL_COPY, 0, 0]
    ].flat())
    assert.strictEqual(Uffd.installPages(g.uffd, vector, 0, 2, full(9), H), 2)
    // The page in the midst of the zeros was there.
    assert.deepStrictEqual([vector[4], vector[5], vector[11]], [2 * H, -17, 0])
    assert.deepStrictEqual([0, 1, 2].map((index) => g.region.fillByte(index * H, H)), [0, 7, 9])
    bursts.close()
    await toucher.end()
  })

  it("are served whole from a region of small pages", async () => {
    using g = guest({
      region: Region.anonymous(2 * H, { hugetlb: H }),
      required: constants.FEATURE_MISSING_HUGETLBFS
    })
    const source = Region.anonymous(3 * H)
    source.write(H + P, full(7), 0, H)
    source.write(2 * H + P, full(8), 0, H - P)
    const poller = new Uffd.FaultPoller(g.uffd, new Float64Array(Uffd.EVENT_WORDS))
    poller.serve(g.region.address, 2 * H, source, P, H)
    poller.start((count) => assert.fail(`the callback was called with ${count}`))
    const toucher = await Toucher.start(g.region)
    assert.deepStrictEqual([await toucher.byte(2 * H - 1), await toucher.byte(H - 1)], [7, 0])
    assert.strictEqual(poller.served(), 2)
    poller.close()
    source.close()
    await toucher.end()
  })

  it.skipIf(!has(minor))("are continued from the memfd", async () => {
    using g = guest({
      region: Region.memfd("huge minor", H, { hugetlb: H }),
      required: minor,
      mode: constants.MODE_MINOR
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, H)
    view.write(0, full(3), 0, H)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(H - 1)
    await readable(g.uffd)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    assert.strictEqual(Uffd.readEvents(g.uffd, ring), 1)
    assert.strictEqual(ring[1]! & constants.PAGEFAULT_FLAG_MINOR, constants.PAGEFAULT_FLAG_MINOR)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.region.address, H, 0), H)
    assert.strictEqual(await byte, 3)
    for (const owner of [view, file]) owner.close()
    await toucher.end()
  })

  it.skipIf(!has(constants.FEATURE_WP_ASYNC))("are tracked whole", () => {
    const region = Region.memfd("huge dirty", 2 * H, { hugetlb: H })
    const tracker = new Uffd.DirtyTracker(region)
    region.write(H + 5, new Uint8Array(1), 0, 1)
    assert.deepStrictEqual([...tracker.getAndReprotect()], [H, H])
    assert.deepStrictEqual([...tracker.get()], [])
    tracker.close()
    region.close()
  })
})
