// What the kernel does that a pager must know, where no other test shows it: a fault and the removal behind it, memory
// that vanishes without an event, a userfaultfd that is closed, huge pages that never form.
import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { decode } from "./Bursts.ts"
import { readable } from "./GuestProcess.ts"
import { anonymous, available, guest, has, P, page } from "./Kernel.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Region } = Uffd
const EAGAIN = -11
/** Faults of system calls wait too. */
const privileged = [Uffd.probe().device, Uffd.probe().syscall].some(({ available }) => available)

const drain = (uffd: Uffd.Descriptor): ReturnType<typeof decode> => {
  const ring = new Float64Array(16 * Uffd.EVENT_WORDS)
  return decode(ring, Uffd.readEvents(uffd, ring))
}

/** A shared region registered for missing and minor faults, and a second view of its memfd that is not registered. */
const shared = (name: string) => {
  const g = guest({
    region: Region.memfd(name, 2 * P),
    required: constants.FEATURE_MISSING_SHMEM + constants.FEATURE_MINOR_SHMEM + constants.FEATURE_EVENT_REMOVE,
    mode: constants.MODE_MISSING + constants.MODE_MINOR
  })
  const file = g.region.descriptor()!
  const view = Region.map(file, 0, 2 * P)
  return {
    ...g,
    view,
    [Symbol.dispose]: () => {
      view.close()
      file.close()
      g[Symbol.dispose]()
    }
  }
}

describe.skipIf(!available)("hazards", () => {
  it("a fault read before the removal behind it: installing fails, the retry must not bring old content", async () => {
    using g = anonymous(2, constants.FEATURE_EVENT_REMOVE)
    Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0)
    const toucher = await Toucher.start(g.region)
    const remover = await Toucher.start(g.region)
    const byte = toucher.byte(P)
    await readable(g.uffd)
    const [fault] = drain(g.uffd)
    assert.strictEqual(fault!.b, g.at(1))
    // Between the two batches another thread removes the page that is about to be served.
    const removed = remover.run({ kind: "madvise", offset: P, length: P, advice: constants.MADV_DONTNEED })
    await readable(g.uffd)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(1), page(9), 0, P, 0), EAGAIN)
    const [removal] = drain(g.uffd)
    assert.deepStrictEqual([removal!.event, removal!.a, removal!.b], [constants.EVENT_REMOVE, g.at(1), g.at(2)])
    assert.strictEqual(await removed, 0)
    // No event will ever tell that the fault can be answered now.
    assert.deepStrictEqual(drain(g.uffd), [])
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(1), P, 0), P)
    assert.strictEqual(await byte, 0)
    await toucher.end()
    await remover.end()
  })

  it("MADV_REMOVE of a memfd's page loses the data for every view", async () => {
    using g = shared("lost")
    g.view.write(0, page(5), 0, P)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(0), P, 0), P)
    assert.strictEqual(g.region.fillByte(0, P), 5)
    const toucher = await Toucher.start(g.region)
    const removed = toucher.run({ kind: "madvise", offset: 0, length: P, advice: constants.MADV_REMOVE })
    await readable(g.uffd)
    assert.strictEqual(drain(g.uffd)[0]!.event, constants.EVENT_REMOVE)
    assert.strictEqual(await removed, 0)
    assert.strictEqual(g.view.fillByte(0, P), 0)
    await toucher.end()
  })

  it("MADV_DONTNEED of a memfd's page keeps it: the next touch is a minor fault", async () => {
    using g = shared("kept")
    g.view.write(0, page(5), 0, P)
    Uffd.continueRange(g.uffd, g.at(0), P, 0)
    const toucher = await Toucher.start(g.region)
    const removed = toucher.run({ kind: "madvise", offset: 0, length: P, advice: constants.MADV_DONTNEED })
    await readable(g.uffd)
    drain(g.uffd)
    await removed
    const byte = toucher.byte(0)
    await readable(g.uffd)
    assert.strictEqual(drain(g.uffd)[0]!.a, constants.PAGEFAULT_FLAG_MINOR)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(0), P, 0), P)
    assert.strictEqual(await byte, 5)
    await toucher.end()
  })

  it("a hole punched through the file makes no event, and the next touch finds the page missing", async () => {
    using g = shared("punched")
    Uffd.copy(g.uffd, g.at(0), page(5), 0, P, 0)
    assert.strictEqual(g.region.fillByte(0, P), 5)
    assert.strictEqual(g.view.madvise(0, P, constants.MADV_REMOVE), 0)
    assert.deepStrictEqual(drain(g.uffd), [])
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await readable(g.uffd)
    const [fault] = drain(g.uffd)
    assert.deepStrictEqual([fault!.event, fault!.a], [constants.EVENT_PAGEFAULT, 0])
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(6), 0, P, 0), P)
    assert.strictEqual(await byte, 6)
    await toucher.end()
  })

  it("closing the last userfaultfd before a touch lets it read zeros in silence", () => {
    using g = anonymous(1)
    g.uffd.close()
    assert.strictEqual(g.region.fillByte(0, P), 0)
  })

  it("closing a region does not end who waits in it: it stays mapped for its other holders", async () => {
    const g = anonymous(1)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(0)
    await readable(g.uffd)
    g.region.close()
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(3), 0, P, 0), P)
    assert.strictEqual(await byte, 3)
    await toucher.end()
    g.uffd.close()
  })

  it("huge pages do not form over missing pages of a registered range, and do without one", () => {
    const huge = 2 * 1024 * 1024
    const region = Region.anonymous(2 * huge)
    const address = Uffd.alignUp(region.address, huge)
    const start = address - region.address
    const uffd = Uffd.open({ userModeOnly: true }).descriptor
    Uffd.register(uffd, address, huge, constants.MODE_MISSING)
    region.madvise(start, huge, constants.MADV_HUGEPAGE)
    const bytes = new Uint8Array(huge - P).fill(1)
    assert.strictEqual(Uffd.copy(uffd, address, bytes, 0, huge - P, 0), huge - P)
    assert.isBelow(region.madvise(start, huge, constants.MADV_COLLAPSE), 0)
    assert.strictEqual(hugeBytes(address), 0)
    Uffd.unregister(uffd, address, huge)
    // The same pages, one of them absent: without the registration it is filled in.
    assert.strictEqual(region.madvise(start, huge, constants.MADV_COLLAPSE), 0)
    assert.strictEqual(hugeBytes(address), huge)
    uffd.close()
    region.close()
  })

  it("user mode only: a system call on a missing page fails, and no event comes", () => {
    using g = anonymous(1)
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const EFAULT = -14
    assert.strictEqual(Uffd.write(a, new Uint8Array(g.region.buffer()), 0, P), EFAULT)
    assert.deepStrictEqual(drain(g.uffd), [])
    for (const owner of [a, b]) owner.close()
  })

  it.skipIf(!privileged || !has(constants.FEATURE_SIGBUS))(
    "SIGBUS: nobody waits and no event comes, not even where system calls may wait",
    () => {
      const { descriptor: uffd } = Uffd.open({ required: constants.FEATURE_SIGBUS })
      const region = Region.anonymous(P)
      Uffd.register(uffd, region.address, P, constants.MODE_MISSING)
      const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
      const EFAULT = -14
      assert.strictEqual(Uffd.write(a, new Uint8Array(region.buffer()), 0, P), EFAULT)
      assert.deepStrictEqual(drain(uffd), [])
      for (const owner of [a, b, uffd, region]) owner.close()
    }
  )
})

/** Bytes in huge pages of the mapping that has an address. */
const hugeBytes = (address: number): number => {
  let inside = false
  for (const line of fs.readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const range = /^([\da-f]+)-([\da-f]+) /.exec(line)
    if (range !== null) inside = parseInt(range[1]!, 16) <= address && address < parseInt(range[2]!, 16)
    const huge = /^AnonHugePages:\s+(\d+) kB/.exec(line)
    if (inside && huge !== null) return Number(huge[1]) * 1024
  }
  throw new Error("the address is not mapped")
}
