// Ranges that a FaultPoller serves itself: which faults it answers, from where, and what it leaves to its callback.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { anonymous, available, guest, has, P, page } from "./Kernel.ts"
import { pendingFaults, queued } from "./Queue.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"

const { constants, FaultPoller, Region } = Uffd

/** A region whose page i is full of the byte `first` + i. */
const numbered = (pages: number, first = 1): Uffd.Region => {
  const region = Region.anonymous(pages * P)
  for (let i = 0; i < pages; i++) region.write(i * P, page(first + i), 0, P)
  return region
}

const unheard = (count: number): void => assert.fail(`the callback was called with ${count}`)
const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}

describe.skipIf(!available)("A FaultPoller serves", () => {
  for (const linger of [0, 50_000]) {
    it(`a range from a region, and calls nobody, lingering for ${linger} ns`, async () => {
      using g = anonymous(64)
      const source = numbered(66)
      const poller = new FaultPoller(g.uffd, new Float64Array(Uffd.EVENT_WORDS))
      // From a page and a half on: the source's offset need not be aligned.
      poller.serve(g.region.address, 64 * P, source, P + P / 2)
      poller.start(unheard, linger)
      const toucher = await Toucher.start(g.region)
      const bytes = await toucher.run({ kind: "read", offset: 0, length: 64 * P }) as Uint8Array
      for (let i = 0; i < 64; i++) {
        assert.deepStrictEqual([bytes[i * P], bytes[i * P + P / 2 - 1], bytes[i * P + P / 2]], [i + 2, i + 2, i + 3])
      }
      assert.strictEqual(poller.served(), 64)
      poller.close()
      source.close()
      await toucher.end()
    })
  }

  it("several ranges, and leaves what lies between them to the callback", async () => {
    using g = anonymous(4)
    const [a, b] = [numbered(1, 10), numbered(1, 20)]
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(3), P, b, 0)
    poller.serve(g.at(0), P, a, 0)
    const heard: Array<number> = []
    poller.start((count) => {
      assert.strictEqual(count, 1)
      heard.push(Uffd.alignDown(ring[2]!))
      Uffd.copy(g.uffd, Uffd.alignDown(ring[2]!), page(7), 0, P, 0)
    })
    const toucher = await Toucher.start(g.region)
    const bytes: Array<number> = []
    for (let i = 0; i < 4; i++) bytes.push(await toucher.byte(i * P))
    assert.deepStrictEqual(bytes, [10, 7, 7, 20])
    assert.deepStrictEqual(heard, [g.at(1), g.at(2)])
    assert.strictEqual(poller.served(), 2)
    poller.close()
    await toucher.end()
  })

  it("no part that was taken back, in the middle of a range or over several", async () => {
    using g = anonymous(8)
    const source = numbered(8)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(0), 6 * P, source, 0)
    poller.serve(g.at(6), 2 * P, source, 6 * P)
    poller.unserve(g.at(1), 2 * P)
    poller.unserve(g.at(5), 2 * P)
    // Another source where nothing is served now.
    poller.serve(g.at(5), P, source, 0)
    poller.start(() => void Uffd.copy(g.uffd, Uffd.alignDown(ring[2]!), page(99), 0, P, 0))
    const toucher = await Toucher.start(g.region)
    const bytes: Array<number> = []
    for (let i = 0; i < 8; i++) bytes.push(await toucher.byte(i * P))
    assert.deepStrictEqual(bytes, [1, 99, 99, 4, 5, 1, 99, 8])
    poller.unserve(g.at(0), 8 * P)
    poller.close()
    poller.unserve(g.at(0), 8 * P)
    await toucher.end()
  })

  it("from a region that everybody else has closed, and lets go of it at its close", async () => {
    using g = anonymous(2)
    const source = numbered(2)
    const token = source.share()
    const poller = new FaultPoller(g.uffd, new Float64Array(Uffd.EVENT_WORDS))
    poller.serve(g.at(0), 2 * P, source, 0)
    source.close()
    poller.start(unheard)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(await toucher.byte(P), 2)
    Region.adopt(token).close()
    poller.close()
    assert.strictEqual(codeOf(() => Region.adopt(token)), "ESTALE")
    await toucher.end()
  })

  it("a page that is there already by waking whoever waits for it", async () => {
    using g = anonymous(1)
    const source = numbered(1)
    const poller = new FaultPoller(g.uffd, new Float64Array(Uffd.EVENT_WORDS))
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await queued(g.uffd)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(5), 0, P, constants.COPY_DONTWAKE), P)
    poller.serve(g.at(0), P, source, 0)
    poller.start(unheard)
    assert.strictEqual(await byte, 5)
    assert.strictEqual(poller.served(), 0)
    poller.close()
    await toucher.end()
  })

  it("nothing that was read together with a removal, which the callback hears of first", async () => {
    using g = anonymous(4, constants.FEATURE_EVENT_REMOVE)
    const source = numbered(4)
    const ring = new Float64Array(8 * Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(0), 4 * P, source, 0)
    const [giver, reader] = [await Toucher.start(g.region), await Toucher.start(g.region)]
    const given = giver.run({ kind: "madvise", offset: 0, length: P, advice: constants.MADV_DONTNEED })
    await queued(g.uffd)
    const byte = reader.byte(0)
    await queued(g.uffd, () => pendingFaults(g.uffd) === 1)
    const heard: Array<string> = []
    poller.start((count) => {
      for (const event of Uffd.decodeEvents(ring, count)) {
        heard.push(event.type)
        if (event.type === "remove") poller.unserve(g.at(0), P)
        // Refused for as long as the giver is on its way out of the removal: raised again.
        else if (Uffd.zeropage(g.uffd, g.at(0), P, 0) !== P) Uffd.wake(g.uffd, g.at(0), P)
      }
    })
    await given
    assert.strictEqual(await byte, 0)
    assert.strictEqual(heard.filter((type) => type === "remove").length, 1)
    assert.include(heard, "pagefault")
    assert.strictEqual(await reader.byte(P), 2)
    poller.close()
    await Promise.all([giver.end(), reader.end()])
  })

  it.skipIf(!has(constants.FEATURE_PAGEFAULT_FLAG_WP))("no fault of a write-protected page", async () => {
    using g = guest({ region: Region.anonymous(P), mode: constants.MODE_MISSING | constants.MODE_WP })
    const source = numbered(1)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(0), P, source, 0)
    const flags: Array<number> = []
    poller.start(() => {
      flags.push(ring[1]!)
      Uffd.writeProtect(g.uffd, g.at(0), P, 0)
    })
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(await toucher.byte(0), 1)
    Uffd.writeProtect(g.uffd, g.at(0), P, constants.WRITEPROTECT_WP)
    await toucher.run({ kind: "write", offset: 0, bytes: page(3).subarray(0, 1) })
    assert.deepStrictEqual(flags, [constants.PAGEFAULT_FLAG_WRITE | constants.PAGEFAULT_FLAG_WP])
    poller.close()
    await toucher.end()
  })

  it("whatever its callback raises again once the range is served", async () => {
    using g = anonymous(1)
    const source = numbered(1, 42)
    const poller = new FaultPoller(g.uffd, new Float64Array(Uffd.EVENT_WORDS))
    let calls = 0
    poller.start(() => {
      calls += 1
      poller.serve(g.at(0), P, source, 0)
      Uffd.wake(g.uffd, g.at(0), P)
    }, 50_000)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(await toucher.byte(0), 42)
    assert.deepStrictEqual([calls, poller.served()], [1, 1])
    poller.close()
    await toucher.end()
  })

  it("no fault whose source was made inaccessible: that one is the callback's", async () => {
    using g = anonymous(2)
    const source = numbered(2)
    source.protectNone(0, P)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(0), 2 * P, source, 0)
    poller.start(() => void Uffd.copy(g.uffd, g.at(0), page(8), 0, P, 0))
    const toucher = await Toucher.start(g.region)
    assert.deepStrictEqual([await toucher.byte(0), await toucher.byte(P)], [8, 2])
    poller.close()
    await toucher.end()
  })

  it("nothing it cannot say: a ring that was transferred away has its faults raised for the next reader", async () => {
    using g = anonymous(2)
    const source = numbered(1)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new FaultPoller(g.uffd, ring)
    poller.serve(g.at(0), P, source, 0)
    structuredClone(ring, { transfer: [ring.buffer] })
    const counts: Array<number> = []
    const said = new Promise<void>((resolve) => {
      poller.start((count) => {
        counts.push(count)
        resolve()
      })
    })
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(await toucher.byte(0), 1)
    const byte = toucher.byte(P)
    await said
    await turns()
    assert.deepStrictEqual(counts, [-105])
    await queued(g.uffd)
    const spare = new Float64Array(Uffd.EVENT_WORDS)
    assert.strictEqual(Uffd.readEvents(g.uffd, spare), 1)
    Uffd.copy(g.uffd, Uffd.alignDown(spare[2]!), page(6), 0, P, 0)
    assert.strictEqual(await byte, 6)
    poller.close()
    await toucher.end()
  })

  it("no range that overlaps, is not whole pages, is not in its source, or is its source", () => {
    using g = anonymous(4)
    const source = numbered(4)
    const poller = new FaultPoller(g.uffd, new Float64Array(4))
    poller.serve(g.at(1), 2 * P, source, 0)
    const range = "ERR_OUT_OF_RANGE"
    const refused = (address: number, length: number, from = source, offset = 0, size?: number) =>
      codeOf(() => poller.serve(address, length, from, offset, size))
    for (const [first, pages] of [[0, 2], [1, 1], [1, 2], [2, 2], [0, 4]] as const) {
      assert.strictEqual(refused(g.at(first), pages * P), range)
    }
    assert.strictEqual(refused(g.at(0) + 1, P), range)
    assert.strictEqual(refused(g.at(0), P + 1), range)
    assert.strictEqual(refused(g.at(0), 0), range)
    assert.strictEqual(refused(g.at(3), P, source, 3 * P + 1), range)
    assert.strictEqual(refused(g.at(3), P, source, 2 ** 53 - 1), range)
    assert.strictEqual(refused(2 ** 53 - P, P), range)
    assert.strictEqual(refused(g.at(3), P, g.region), range)
    assert.strictEqual(refused(g.at(3), P, source, 0, P + 1), range)
    assert.strictEqual(refused(g.at(3), P, source, 0, 2 * P), range)
    // Neighbours do not overlap.
    poller.serve(g.at(0), P, source, 0)
    poller.serve(g.at(3), P, source, 3 * P)
    source.close()
    poller.unserve(g.at(0), P)
    assert.strictEqual(refused(g.at(0), P), "EBADF")
    poller.close()
    assert.strictEqual(codeOf(() => poller.serve(g.at(0), P, numbered(1), 0)), "EBADF")
  })
})
