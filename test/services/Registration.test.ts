/** What can be registered with a userfaultfd: all blocks of a guest, or none of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import * as Binding from "../../src/native/Binding.ts"
import { Userfaultfd } from "../../src/services/Userfaultfd.ts"
import { PAGE } from "../actors/Contents.ts"

const addon = Binding.require()

/** Whether a touch of a missing page at this address would wait: its mapping has the flag "um" (missing) then. */
const isRegistered = (address: number): boolean => {
  let within = false
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line)
    if (range !== null) within = address >= parseInt(range[1]!, 16) && address < parseInt(range[2]!, 16)
    else if (within && line.startsWith("VmFlags:")) return line.split(" ").includes("um")
  }
  throw new Error("nothing is mapped there")
}

describe("registering", () => {
  it.live("B57: a block without memory of the addon's is refused by its name, and no other stays registered", () =>
    Effect.gen(function*() {
      const region = yield* Effect.acquireRelease(
        Effect.sync(() => addon.Region.anonymous(PAGE)),
        (mapped) => Effect.sync(() => mapped.close())
      )
      const sizes = { length: PAGE, maximum: PAGE, hostPageSize: PAGE }
      const blocks = [
        { ...sizes, idstr: "ram", memory: { _tag: "Region", token: region.share(), backing: "anonymous" } as const },
        { ...sizes, idstr: "rom", memory: { _tag: "Shared", buffer: new SharedArrayBuffer(PAGE) } as const }
      ]
      const uffd = yield* Userfaultfd
      const error = yield* Effect.scoped(uffd.register(blocks, () => true)).pipe(Effect.flip)
      assert.strictEqual(error._tag, "Unsupported")
      assert.match(error.detail, /rom/)
      assert.isFalse(isRegistered(region.address))
    }))
})
