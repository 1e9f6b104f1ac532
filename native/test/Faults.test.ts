// Faults of a real thread, served by this one, and the hazards of the kernel's event queue.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Bursts, decode } from "./Bursts.ts"
import { readable } from "./GuestProcess.ts"
import { anonymous, available, guest, has, P, page } from "./Kernel.ts"
import { pendingFaults, queued } from "./Queue.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Region } = Uffd

const EAGAIN = -11
const EEXIST = -17
const ENOENT = -2

const readAll = (uffd: Uffd.Descriptor): ReturnType<typeof decode> => {
  const ring = new Float64Array(16 * Uffd.EVENT_WORDS)
  return decode(ring, Uffd.readEvents(uffd, ring))
}

describe.skipIf(!available)("faults", () => {
  it("wakes a thread with the page that was copied", async () => {
    using g = anonymous(4, constants.FEATURE_THREAD_ID)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(2 * P + 100)
    const [event] = await bursts.take(1)
    assert.deepStrictEqual(event, { event: constants.EVENT_PAGEFAULT, a: 0, b: g.at(2), c: toucher.threadId })
    assert.strictEqual(Uffd.copy(g.uffd, g.at(2), page(77), 0, P, 0), P)
    assert.strictEqual(await byte, 77)
    bursts.close()
    await toucher.end()
  })

  it("marks write faults and gives exact addresses when asked", async () => {
    using g = anonymous(2, constants.FEATURE_EXACT_ADDRESS)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const written = toucher.run({ kind: "write", offset: P + 123, bytes: new Uint8Array([42]) })
    const [event] = await bursts.take(1)
    assert.deepStrictEqual(event, {
      event: constants.EVENT_PAGEFAULT,
      a: constants.PAGEFAULT_FLAG_WRITE,
      b: g.at(1) + 123,
      c: 0
    })
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(1), P, 0), P)
    assert.strictEqual(await written, 1)
    assert.strictEqual(g.region.fillByte(P + 123, 1), 42)
    bursts.close()
    await toucher.end()
  })

  it("reports two threads on one page twice, and one copy wakes both", async () => {
    using g = anonymous(1)
    const bursts = new Bursts(g.uffd)
    const touchers = await Promise.all([Toucher.start(g.region), Toucher.start(g.region)])
    const bytes = touchers.map((toucher) => toucher.byte(5))
    const events = await bursts.take(2)
    assert.deepStrictEqual(events.map((event) => event.b), [g.at(0), g.at(0)])
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(3), 0, P, 0), P)
    assert.deepStrictEqual(await Promise.all(bytes), [3, 3])
    bursts.close()
    await Promise.all(touchers.map((toucher) => toucher.end()))
  })

  it("leaves a thread asleep after a copy that does not wake, until it is woken", async () => {
    using g = anonymous(1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await bursts.fault()
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(4), 0, P, constants.COPY_DONTWAKE), P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(5), 0, P, 0), EEXIST)
    // EEXIST is success for the page, not for who waits for it.
    assert.strictEqual(Uffd.wake(g.uffd, g.at(0), P), 0)
    assert.strictEqual(await byte, 4)
    bursts.close()
    await toucher.end()
  })

  it("resolves a thread that reads a minor fault by continuing", async (context) => {
    if (!has(constants.FEATURE_MINOR_SHMEM)) context.skip("this kernel has no minor faults on shared memory")
    using g = guest({
      region: Region.memfd("minor", 2 * P),
      required: constants.FEATURE_MINOR_SHMEM | constants.FEATURE_MISSING_SHMEM,
      mode: constants.MODE_MISSING | constants.MODE_MINOR
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, 2 * P)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    view.write(0, page(1), 0, P)
    const minor = toucher.byte(0)
    const [first] = await bursts.take(1)
    assert.strictEqual(first!.a, constants.PAGEFAULT_FLAG_MINOR)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(0), P, 0), P)
    assert.strictEqual(await minor, 1)

    // A waiter that faulted as missing is resolved by it too, once the memfd has the page.
    const missing = toucher.byte(P)
    const [second] = await bursts.take(1)
    assert.strictEqual(second!.a, 0)
    view.write(P, page(2), 0, P)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(1), P, 0), P)
    assert.strictEqual(await missing, 2)
    bursts.close()
    view.close()
    file.close()
    await toucher.end()
  })

  it("wakes a parked thread with zeros when the last userfaultfd is closed", async () => {
    using g = anonymous(1)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await bursts.fault()
    // The poller's duplicate is the last but one.
    bursts.close()
    g.uffd.close()
    assert.strictEqual(await byte, 0)
    await toucher.end()
  })

  it("keeps the registration while a duplicate of the userfaultfd is open", async () => {
    using g = anonymous(1)
    const spare = g.uffd.dup()
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await bursts.fault()
    bursts.close()
    g.uffd.close()
    assert.strictEqual(Uffd.copy(spare, g.at(0), page(9), 0, P, 0), P)
    assert.strictEqual(await byte, 9)
    spare.close()
    await toucher.end()
  })
})

describe.skipIf(!available)("removals", () => {
  it("give EAGAIN as -11 to every installation until they are read", async () => {
    using g = anonymous(4, constants.FEATURE_EVENT_REMOVE)
    const toucher = await Toucher.start(g.region)
    const removed = toucher.run({ kind: "madvise", offset: P, length: 2 * P, advice: constants.MADV_DONTNEED })
    await queued(g.uffd)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0), EAGAIN)
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(3), P, 0), EAGAIN)
    assert.deepStrictEqual(readAll(g.uffd), [{ event: constants.EVENT_REMOVE, a: g.at(1), b: g.at(3), c: 0 }])
    assert.strictEqual(await removed, 0)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0), P)
    await toucher.end()
  })

  it("come after faults that were queued later", async () => {
    using g = anonymous(4, constants.FEATURE_EVENT_REMOVE)
    const remover = await Toucher.start(g.region)
    const toucher = await Toucher.start(g.region)
    const removed = remover.run({ kind: "madvise", offset: 0, length: P, advice: constants.MADV_DONTNEED })
    await queued(g.uffd)
    const byte = toucher.byte(3 * P)
    await queued(g.uffd, () => pendingFaults(g.uffd) === 1)
    assert.deepStrictEqual(readAll(g.uffd).map(({ event }) => event), [
      constants.EVENT_PAGEFAULT,
      constants.EVENT_REMOVE
    ])
    assert.strictEqual(await removed, 0)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(3), page(6), 0, P, 0), P)
    assert.strictEqual(await byte, 6)
    await remover.end()
    await toucher.end()
  })

  it("make the page missing again", async () => {
    using g = anonymous(1, constants.FEATURE_EVENT_REMOVE)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0), P)
    const removed = toucher.run({ kind: "madvise", offset: 0, length: P, advice: constants.MADV_DONTNEED })
    const [event] = await bursts.take(1)
    assert.strictEqual(event!.event, constants.EVENT_REMOVE)
    assert.strictEqual(await removed, 0)
    const byte = toucher.byte(0)
    assert.strictEqual(await bursts.fault(), g.at(0))
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(0), P, 0), P)
    assert.strictEqual(await byte, 0)
    bursts.close()
    await toucher.end()
  })

  it("of the whole mapping are an UNMAP event that holds up nobody here, and the range is gone", async () => {
    using g = anonymous(2, constants.FEATURE_EVENT_UNMAP)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const address = g.region.address
    g.region.close()
    // The worker holds it alone now, and the kernel makes the unmapping wait for its event to be read.
    assert.strictEqual(await toucher.run({ kind: "close" }), 0)
    const [event] = await bursts.take(1)
    assert.deepStrictEqual(event, { event: constants.EVENT_UNMAP, a: address, b: address + 2 * P, c: 0 })
    // A reader of the event need not be another thread than the one that lets go.
    using own = anonymous(2, constants.FEATURE_EVENT_UNMAP)
    own.region.close()
    await readable(own.uffd)
    assert.strictEqual(readAll(own.uffd).length, 1)
    for (const [uffd, start] of [[g.uffd, address], [own.uffd, own.at(0)]] as const) {
      // The event is read, but the unmapping thread has still to go on and say so.
      let result = EAGAIN
      while (result === EAGAIN) {
        result = Uffd.copy(uffd, start, page(1), 0, P, 0)
        await new Promise((resolve) => setImmediate(resolve))
      }
      assert.strictEqual(result, ENOENT)
    }
    bursts.close()
    await toucher.end()
  })

  it("through the file of a memfd are no event, and the next touch is missing", async (context) => {
    if (!has(constants.FEATURE_MISSING_SHMEM)) context.skip("this kernel has no missing faults on shared memory")
    using g = guest({
      region: Region.memfd("hole", 2 * P),
      required: constants.FEATURE_EVENT_REMOVE | constants.FEATURE_MISSING_SHMEM
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, 2 * P)
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(5), 0, P, 0), P)
    // The view is not registered, so its removal concerns nobody but the file.
    assert.strictEqual(view.madvise(0, P, constants.MADV_REMOVE), 0)
    const byte = toucher.byte(0)
    assert.strictEqual(await bursts.fault(), g.at(0))
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(0), P, 0), P)
    assert.strictEqual(await byte, 0)
    bursts.close()
    view.close()
    file.close()
    await toucher.end()
  })
})
