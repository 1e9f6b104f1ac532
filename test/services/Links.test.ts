/** Links over descriptors that the process was given, by their number. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { closeSync, openSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Binding from "../../src/native/Binding.ts"
import { Links } from "../../src/services/Links.ts"

const addon = Binding.require()
const hello = new TextEncoder().encode("hello")

describe("a descriptor by its number", () => {
  it.live("B42: is a link in both directions, and closed with it", () =>
    Effect.gen(function*() {
      const [near, far] = addon.socketpair(addon.constants.SOCK_STREAM)
      yield* Effect.addFinalizer(() => Effect.sync(() => far.close()))
      const link = yield* (yield* Links).connect(`fd:${near.release()}`)
      const into = new Uint8Array(5)
      assert.strictEqual(link.write(hello, 0, 5), 5)
      assert.strictEqual(addon.read(far, into, 0, 5), 5)
      assert.deepStrictEqual(into, hello)
      assert.strictEqual(addon.write(far, hello, 0, 5), 5)
      assert.strictEqual(link.read(into.fill(0), 0, 5), 5)
      assert.deepStrictEqual(into, hello)
      link.close()
      assert.strictEqual(addon.read(far, into, 0, 5), 0)
    }))

  it.live("B42: that is no connected stream socket for reading and writing is EINVAL, one that is not open EBADF", () =>
    Effect.gen(function*() {
      const links = yield* Links
      const file = openSync(join(tmpdir(), "."), "r")
      const wrong = yield* Effect.flip(links.connect(`fd:${file}`))
      assert.deepStrictEqual([wrong._tag, wrong.detail.includes("EINVAL")], ["InvalidArgument", true])
      assert.throws(() => closeSync(file), /EBADF/, "it was given, and is closed with the refusal")
      const absent = yield* Effect.flip(links.connect("fd:999999"))
      assert.deepStrictEqual([absent._tag, absent.detail.includes("EBADF")], ["InvalidArgument", true])
    }))
})
