import { constants, Descriptor, errnoName, open, pageSize, probe } from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { available } from "./Kernel.ts"
import { thrown } from "./Thrown.ts"

describe("open", () => {
  it("reports what the host offers, each way on its own", () => {
    const found = probe()
    for (const way of [found.device, found.syscall, found.userModeOnly]) {
      assert.strictEqual(way.available, way.errno === 0)
    }
    if (found.userModeOnly.available) {
      assert.strictEqual(found.ioctls, 0b11)
      assert.notStrictEqual(found.features & constants.FEATURE_EVENT_REMOVE, 0)
    }
  })

  it.skipIf(!available)("takes required features, and optional ones that the kernel has", () => {
    const unknown = 2 ** 45
    const opened = open({
      required: constants.FEATURE_EVENT_REMOVE,
      optional: constants.FEATURE_THREAD_ID + unknown,
      userModeOnly: true
    })
    assert.strictEqual(opened.features, constants.FEATURE_EVENT_REMOVE | constants.FEATURE_THREAD_ID)
    assert.strictEqual(opened.userModeOnly, true)
    assert.strictEqual(opened.ioctls, 0b11)
    assert.isTrue(opened.descriptor instanceof Descriptor)
    opened.descriptor.close()
  })

  it.skipIf(!available)("B67: fails at open when a required feature is missing", () => {
    const error = thrown(() => open({ required: 2 ** 45, userModeOnly: true }))
    assert.strictEqual(error.code, "ENOTSUP")
    assert.strictEqual(error.errno, 95)
    assert.strictEqual(error.syscall, "ioctl UFFDIO_API")
    assert.include(error.message, "0x200000000000")
  })

  it.skipIf(!available)("says with which of the two ways it was opened", () => {
    const found = probe()
    for (const via of ["device", "syscall"] as const) {
      if (!found[via].available) continue
      const opened = open({ via })
      assert.strictEqual(opened.via, via)
      opened.descriptor.close()
    }
  })

  it.skipIf(!available)("includes the feature that WP_ASYNC implies", () => {
    const opened = open({ optional: constants.FEATURE_WP_ASYNC, userModeOnly: true })
    if ((opened.offered & constants.FEATURE_WP_ASYNC) !== 0) {
      assert.strictEqual(opened.features, constants.FEATURE_WP_ASYNC | constants.FEATURE_WP_UNPOPULATED)
    }
    opened.descriptor.close()
  })

  it("names errnos", () => {
    assert.strictEqual(errnoName(11), "EAGAIN")
    assert.strictEqual(errnoName(17), "EEXIST")
    assert.strictEqual(errnoName(116), "ESTALE")
    assert.strictEqual(errnoName(4000), "E4000")
    assert.isTrue(Number.isInteger(Math.log2(pageSize)))
  })

  it("has constants that cannot be changed", () => {
    assert.isTrue(Object.isFrozen(constants))
    assert.strictEqual(constants.FEATURE_MOVE, 0x10000)
  })
})
