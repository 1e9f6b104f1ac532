// UFFDIO_MOVE: pages change their place without being copied.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { anonymous, guest, has, P, page } from "./Kernel.ts"

const { constants, Region } = Uffd
const EBADF = -9
const EEXIST = -17
const EFAULT = -14
const ENOENT = -2

const missing = (pages: number) => anonymous(pages, constants.FEATURE_MOVE)

describe.skipIf(!has(constants.FEATURE_MOVE))("moving", () => {
  it("takes the pages from the source, which reads zeros afterwards", () => {
    using g = missing(4)
    const source = Region.anonymous(4 * P)
    source.write(0, page(1), 0, P)
    source.write(P, page(2), 0, P)
    assert.strictEqual(Uffd.move(g.uffd, g.at(1), source.address, 2 * P, 0), 2 * P)
    assert.strictEqual(g.region.fillByte(P, P), 1)
    assert.strictEqual(g.region.fillByte(2 * P, P), 2)
    assert.strictEqual(source.fillByte(0, 2 * P), 0)
    source.close()
  })

  it("skips holes of the source when told to, else stops there", () => {
    using g = missing(3)
    const source = Region.anonymous(3 * P)
    source.write(0, page(1), 0, P)
    source.write(2 * P, page(3), 0, P)
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), source.address, 3 * P, 0), P)
    assert.strictEqual(Uffd.move(g.uffd, g.at(1), source.address + P, 2 * P, 0), ENOENT)
    assert.strictEqual(
      Uffd.move(g.uffd, g.at(1), source.address + P, 2 * P, constants.MOVE_ALLOW_SRC_HOLES),
      2 * P
    )
    assert.strictEqual(g.region.fillByte(2 * P, P), 3)
    source.close()
  })

  it("does not overwrite what is present", () => {
    using g = missing(1)
    const source = Region.anonymous(P)
    source.write(0, page(1), 0, P)
    assert.strictEqual(Uffd.copy(g.uffd, g.at(0), page(2), 0, P, 0), P)
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), source.address, P, 0), EEXIST)
    assert.strictEqual(source.fillByte(0, P), 1)
    source.close()
  })

  it("takes nothing from memory that is no region's", () => {
    using g = missing(1)
    const source = Region.anonymous(2 * P)
    source.write(0, page(1, 2), 0, 2 * P)
    const address = source.address
    // Beyond the end, of a stack or a heap as it may be, and of a region that is closed.
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), address + P, 2 * P, 0), EFAULT)
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), 0, P, 0), EFAULT)
    assert.strictEqual(source.fillByte(0, 2 * P), 1)
    source.close()
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), address, P, 0), EFAULT)
    g.uffd.close()
    assert.strictEqual(Uffd.move(g.uffd, g.at(0), address, P, 0), EBADF)
  })
})

describe.skipIf(!has(0x1))("a registration", () => {
  it("of memory that is no region's is refused", () => {
    using g = anonymous(2)
    const { uffd } = g
    const region = Region.anonymous(2 * P)
    const address = region.address
    const refused = (start: number, length: number): string => {
      try {
        Uffd.register(uffd, start, length, constants.MODE_MISSING)
      } catch (error) {
        return (error as Uffd.SystemError).code
      }
      return "registered"
    }
    assert.strictEqual(refused(address + P, 2 * P), "EFAULT")
    assert.strictEqual(refused(address - P, P), "EFAULT")
    assert.strictEqual(refused(P, P), "EFAULT")
    assert.strictEqual(refused(address, Number.MAX_SAFE_INTEGER), "EFAULT")
    assert.strictEqual(refused(address + P, P), "registered")
    region.close()
    assert.strictEqual(refused(address, P), "EFAULT")
    // A duplicate and one adopted by token know it too.
    for (const other of [uffd.dup(), Uffd.Descriptor.adopt(uffd.share())]) {
      assert.throws(() => Uffd.register(other, address, P, constants.MODE_MISSING), /EFAULT/)
      other.close()
    }
  })

  it("of another userfaultfd is EBUSY", () => {
    using g = anonymous(1)
    using other = anonymous(1)
    assert.throws(() => Uffd.register(other.uffd, g.region.address, P, constants.MODE_MISSING), /EBUSY/)
  })

  it("passes on ioctl bits and tells them by name", () => {
    using g = anonymous(1)
    const bits = Uffd.register(g.uffd, g.region.address, P, constants.MODE_MISSING)
    for (const bit of [constants.IOCTL_WAKE, constants.IOCTL_COPY, constants.IOCTL_ZEROPAGE]) {
      assert.strictEqual(bits & bit, bit)
    }
    if (has(constants.FEATURE_MOVE)) assert.strictEqual(bits & constants.IOCTL_MOVE, constants.IOCTL_MOVE)
    if (has(constants.FEATURE_POISON)) assert.strictEqual(bits & constants.IOCTL_POISON, constants.IOCTL_POISON)
    using wp = guest({
      region: Region.anonymous(P),
      required: constants.FEATURE_PAGEFAULT_FLAG_WP,
      mode: constants.MODE_WP
    })
    const wpBits = Uffd.register(wp.uffd, wp.region.address, P, constants.MODE_WP)
    assert.strictEqual(wpBits & constants.IOCTL_WRITEPROTECT, constants.IOCTL_WRITEPROTECT)
  })
})
