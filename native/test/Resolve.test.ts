// The range ioctls one by one, without a fault: what the kernel returns and that it reaches the caller unchanged.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { anonymous, available, guest, has, open, P, page } from "./Kernel.ts"
import { wasmMemory } from "./WasmMemory.ts"

const { constants, Region } = Uffd

const EEXIST = -17
const ENOENT = -2
const EINVAL = -22
const EFAULT = -14

describe.skipIf(!available)("resolving", () => {
  it("registers and unregisters, and reports the range's ioctls", () => {
    const uffd = open()
    const region = Region.anonymous(4 * P)
    const ioctls = Uffd.register(uffd, region.address, region.length, constants.MODE_MISSING)
    // WAKE, COPY and ZEROPAGE at least: bits of their ioctl numbers.
    assert.strictEqual(ioctls & 0b11100, 0b11100)
    Uffd.unregister(uffd, region.address, region.length)
    assert.strictEqual(Uffd.copy(uffd, region.address, page(1), 0, P, 0), ENOENT)
    assert.throws(() => Uffd.register(uffd, region.address + 1, P, constants.MODE_MISSING), /EINVAL/)
    assert.throws(() => Uffd.register(uffd, region.address, P, 0), /EINVAL/)
    assert.throws(() => Uffd.unregister(uffd, region.address, 0), /EINVAL/)
    uffd.close()
    region.close()
  })

  it("copies pages, also from an unaligned source", () => {
    using g = anonymous(4)
    const source = new Uint8Array(3 * P + 5).map((_, i) => i)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(1), source, 5, 3 * P, 0), 3 * P)
    const read = new Uint8Array(3 * P)
    assert.strictEqual(g.region.read(P, read, 0, 3 * P), 3 * P)
    assert.deepStrictEqual(read, source.subarray(5))
  })

  it("gives EEXIST as -17 for a page that is present", () => {
    using g = anonymous(1)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 0), P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(2), 0, P, 0), EEXIST)
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(0), P, 0), EEXIST)
    assert.strictEqual(g.region.fillByte(0, P), 1)
  })

  it("gives the positive bytes of a copy that met a present page, then EEXIST", () => {
    using g = anonymous(3)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(1), page(9), 0, P, 0), P)
    const source = page(1, 3)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), source, 0, 3 * P, 0), P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(1), source, P, 2 * P, 0), EEXIST)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(2), source, 2 * P, P, 0), P)
    assert.strictEqual(g.region.fillByte(0, P), 1)
    assert.strictEqual(g.region.fillByte(P, P), 9)
    assert.strictEqual(g.region.fillByte(2 * P, P), 1)
  })

  it("gives ENOENT outside a registered range and after the unmapping", () => {
    const uffd = open()
    const region = Region.anonymous(4 * P)
    const address = region.address
    Uffd.register(uffd, address, 2 * P, constants.MODE_MISSING)
    assert.strictEqual(Uffd.copy(uffd, address + 2 * P, page(1), 0, P, 0), ENOENT)
    assert.strictEqual(Uffd.zeropage(uffd, address + 2 * P, P, 0), ENOENT)
    region.close()
    assert.strictEqual(Uffd.copy(uffd, address, page(1), 0, P, 0), ENOENT)
    uffd.close()
  })

  it("gives EINVAL for an unaligned destination, no bytes and unknown modes", () => {
    using g = anonymous(2)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0) + 1, page(1), 0, P, 0), EINVAL)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, 0, 0), EINVAL)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(1), 0, P, 1024), EINVAL)
    assert.strictEqual(Uffd.wake(g.uffd, g.at(0), 0), EINVAL)
    assert.strictEqual(Uffd.wake(g.uffd, g.at(0), P), 0)
  })

  it("fills zero pages", () => {
    using g = anonymous(8)
    assert.strictEqual(Uffd.zeropage(g.uffd, g.at(0), 8 * P, 0), 8 * P)
    assert.strictEqual(g.region.fillByte(0, 8 * P), 0)
  })

  it.skipIf(!has(constants.FEATURE_MINOR_SHMEM))("continues a page that the memfd has, and only that", () => {
    using g = guest({
      region: Region.memfd("continue", 4 * P),
      required: constants.FEATURE_MINOR_SHMEM | constants.FEATURE_MISSING_SHMEM,
      mode: constants.MODE_MISSING | constants.MODE_MINOR
    })
    const file = g.region.descriptor()!
    const view = Region.map(file, 0, 4 * P)
    assert.strictEqual(view.write(P, page(3), 0, P), P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(1), page(4), 0, P, 0), EEXIST)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(1), P, 0), P)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(1), P, 0), EEXIST)
    assert.strictEqual(Uffd.continueRange(g.uffd, g.at(2), P, 0), EFAULT)
    assert.strictEqual(g.region.fillByte(P, P), 3)
    view.close()
    file.close()
  })

  it.skipIf(!has(constants.FEATURE_POISON))("undoes a poisoned page by a copy over it", () => {
    using g = anonymous(2, constants.FEATURE_POISON)
    assert.strictEqual(Uffd.poison(g.uffd, g.at(0), P), P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(6), 0, P, 0), P)
    assert.strictEqual(g.region.fillByte(0, P), 6)
  })

  it("refuses descriptors that are no userfaultfd", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.strictEqual(Uffd.write(b, page(0x12), 0, P), P)
    assert.strictEqual(Uffd.readEvents(a, new Float64Array(16)), -25)
    assert.isBelow(Uffd.copy(a, 0, page(1), 0, P, 0), 0)
    assert.throws(() => Uffd.register(a, 0, P, 1), /ENOTTY|EINVAL|ENOTSUP/)
    assert.throws(() => new Uffd.FaultPoller(a, new Float64Array(16)), /ENOTTY/)
    // Nothing was consumed.
    assert.strictEqual(Uffd.read(a, page(0), 0, P), P)
    a.close()
    b.close()
  })

  it("B68: says that no event is pending", () => {
    using g = anonymous(1)
    assert.strictEqual(Uffd.readEvents(g.uffd, new Float64Array(8)), 0)
  })

  it("registers the memory of a WebAssembly.Memory in place", () => {
    const memory = wasmMemory(2, 2)
    const region = Region.ofBuffer(memory.buffer)
    assert.strictEqual(region.length, 2 * 65536)
    assert.strictEqual(region.buffer(), memory.buffer)
    assert.strictEqual(region.madvise(0, region.length, constants.MADV_DONTNEED), 0)
    using g = guest({ region })
    assert.strictEqual(Uffd.copy(g.uffd, g.at(3), page(8), 0, P, 0), P)
    assert.strictEqual(new Uint8Array(memory.buffer, 3 * P, P)[17], 8)
  })
})
