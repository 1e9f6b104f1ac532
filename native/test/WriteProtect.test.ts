// Write protection that is served: a write waits as a read of a missing page does, until the protection goes.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Bursts } from "./Bursts.ts"
import { anonymous, guest, has, P, page } from "./Kernel.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Region } = Uffd
const { COPY_WP, MODE_MISSING, MODE_MINOR, MODE_WP, PAGEFAULT_FLAG_WP, PAGEFAULT_FLAG_WRITE, WRITEPROTECT_WP } =
  constants
const ENOENT = -2

const tracked = (pages: number, required = 0) =>
  guest({
    region: Region.anonymous(pages * P),
    required: constants.FEATURE_PAGEFAULT_FLAG_WP + required,
    mode: MODE_MISSING | MODE_WP
  })

describe.skipIf(!has(constants.FEATURE_PAGEFAULT_FLAG_WP))("write protection", () => {
  it("of a copied page lets reads pass and makes a write wait until it is taken away", async () => {
    using g = tracked(2)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(7), 0, P, COPY_WP), P)
    assert.strictEqual(await toucher.byte(3), 7)
    const written = toucher.run({ kind: "write", offset: 5, bytes: new Uint8Array([9]) })
    const [event] = await bursts.take(1)
    assert.deepStrictEqual({ flags: event!.a, address: event!.b }, {
      flags: PAGEFAULT_FLAG_WP | PAGEFAULT_FLAG_WRITE,
      address: g.at(0)
    })
    // The page is there: a copy says so and answers nobody.
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0), -17)
    assert.strictEqual(g.region.fillByte(0, P), 7)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, 0), 0)
    assert.strictEqual(await written, 1)
    assert.strictEqual(g.region.fillByte(5, 1), 9)
    bursts.close()
    await toucher.end()
  })

  it("is another fault than the missing page's, of the same page", async () => {
    using g = tracked(1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const written = toucher.run({ kind: "write", offset: 0, bytes: new Uint8Array([9]) })
    const [missing] = await bursts.take(1)
    assert.strictEqual(missing!.a, PAGEFAULT_FLAG_WRITE)
    // Whoever takes the two for one and the same fault leaves the writer waiting.
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(7), 0, P, COPY_WP), P)
    const [wp] = await bursts.take(1)
    assert.strictEqual(wp!.a, PAGEFAULT_FLAG_WP | PAGEFAULT_FLAG_WRITE)
    assert.strictEqual(wp!.b, missing!.b)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, 0), 0)
    assert.strictEqual(await written, 1)
    bursts.close()
    await toucher.end()
  })

  it("leaves the waiter asleep when told to, until it is woken", async () => {
    using g = tracked(1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    Uffd.copy(g.uffd, g.at(0), page(7), 0, P, COPY_WP)
    const written = toucher.run({ kind: "write", offset: 0, bytes: new Uint8Array([9]) })
    await bursts.fault()
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, constants.WRITEPROTECT_DONTWAKE), 0)
    assert.strictEqual(g.region.fillByte(0, 1), 7)
    assert.strictEqual(Uffd.wake(g.uffd, g.at(0), P), 0)
    assert.strictEqual(await written, 1)
    bursts.close()
    await toucher.end()
  })

  it("of pages that are not populated is lost in silence, unless the feature is asked for", async () => {
    // Protected before anything is there. This thread may write: with the protection lost, nobody waits.
    using lost = guest({
      region: Region.anonymous(P),
      required: constants.FEATURE_PAGEFAULT_FLAG_WP,
      mode: MODE_WP
    })
    assert.strictEqual(Uffd.writeProtect(lost.uffd, lost.at(0), P, WRITEPROTECT_WP), 0)
    assert.strictEqual(lost.region.write(0, page(1), 0, P), P)
    assert.strictEqual(Uffd.readEvents(lost.uffd, new Float64Array(4)), 0)

    using kept = guest({
      region: Region.anonymous(P),
      required: constants.FEATURE_PAGEFAULT_FLAG_WP + constants.FEATURE_WP_UNPOPULATED,
      mode: MODE_WP
    })
    assert.strictEqual(Uffd.writeProtect(kept.uffd, kept.at(0), P, WRITEPROTECT_WP), 0)
    const bursts = new Bursts(kept.uffd)
    const toucher = await Toucher.start(kept.region)
    const written = toucher.run({ kind: "write", offset: 0, bytes: new Uint8Array([9]) })
    const [event] = await bursts.take(1)
    assert.strictEqual(event!.a & PAGEFAULT_FLAG_WP, PAGEFAULT_FLAG_WP)
    assert.strictEqual(Uffd.writeProtect(kept.uffd, kept.at(0), P, 0), 0)
    assert.strictEqual(await written, 1)
    bursts.close()
    await toucher.end()
  })

  it("is refused outside a range that was registered for it", () => {
    using g = anonymous(2)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, WRITEPROTECT_WP), ENOENT)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, COPY_WP), -22)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, 4), -22)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0) + 1, P, 0), -22)
  })

  it("comes with a continued page of a memfd too", async () => {
    using g = guest({
      region: Region.memfd("continue wp", P),
      required: constants.FEATURE_MINOR_SHMEM + constants.FEATURE_WP_HUGETLBFS_SHMEM,
      mode: MODE_MINOR | MODE_WP
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, P)
    view.write(0, page(4), 0, P)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(0), P, constants.CONTINUE_WP), P)
    assert.strictEqual(await toucher.byte(0), 4)
    const written = toucher.run({ kind: "write", offset: 0, bytes: new Uint8Array([9]) })
    const [event] = await bursts.take(1)
    assert.strictEqual(event!.a & PAGEFAULT_FLAG_WP, PAGEFAULT_FLAG_WP)
    assert.strictEqual(Uffd.writeProtect(g.uffd, g.at(0), P, 0), 0)
    assert.strictEqual(await written, 1)
    assert.strictEqual(view.fillByte(0, 1), 9)
    bursts.close()
    view.close()
    file.close()
    await toucher.end()
  })
})
