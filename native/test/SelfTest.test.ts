// The comparison of constants with the running kernel. That it would find a wrong one is in Build.test.ts.
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { available } from "./Kernel.ts"

describe.skipIf(!available)("the self-test", () => {
  it("finds nothing different in the running kernel", () => {
    const checks = Uffd.selfTest()
    assert.deepStrictEqual(checks.map(({ name }) => name), [
      "COPY",
      "ZEROPAGE",
      "POISON",
      "MOVE",
      "CONTINUE",
      "WRITEPROTECT and PAGEMAP_SCAN",
      "PAGEFAULT"
    ])
    for (const check of checks) assert.deepStrictEqual(check, { ...check, ok: true, detail: "" })
    const { features } = Uffd.probe()
    const offered = (feature: number) => (features & feature) !== 0
    const { FEATURE_MINOR_SHMEM, FEATURE_MOVE, FEATURE_POISON, FEATURE_WP_ASYNC } = Uffd.constants
    assert.deepStrictEqual(
      checks.map((check) => check.offered),
      [true, true, ...[FEATURE_POISON, FEATURE_MOVE, FEATURE_MINOR_SHMEM, FEATURE_WP_ASYNC].map(offered), true]
    )
  })
})
