/** What a capture leaves behind: the guest as it was or as was asked, and when it can be captured again. */
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory, postcopy } from "../cli/Postcopy.ts"
import { follows, restored, save, unharmed } from "./Commands.ts"
import * as Machine from "./Machine.ts"

const options = { memoryMiB: 64, countMiB: 8 }

describe.skipIf(Machine.missing !== undefined)(
  Machine.title("a machine that was saved"),
  { timeout: Machine.TIMEOUT },
  () => {
    it("and left paused is saved again once it has run, not before; so is a clone of it", async () => {
      const home = directory()
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await save(source.qmp, join(home, "first"))
      for (const more of [[], ["--live"], ["--resume"]]) {
        const refused = await postcopy("qemu", "save", "--json", source.qmp, join(home, "second"), ...more)
        assert.deepStrictEqual([refused.code, refused.error.tag], [1, "Refused"])
        assert.match(refused.error.message, /postmigrate.*QMP cont/)
      }
      // It is QEMU's own rule: should it go, this test tells.
      const own = await source.execute("migrate", { uri: "exec:cat > /dev/null" }).catch((error: Error) =>
        error.message
      )
      assert.match(own, /paused due to previous migration/)
      assert.deepInclude(await source.execute("query-status"), { status: "postmigrate" })
      await source.execute("cont")
      await Machine.verifies(source, 1)
      await save(source.qmp, join(home, "second"))
      unharmed(source)

      const clone = await Machine.start(home, { ...options, incoming: "defer" })
      await restored(join(home, "second"), `unix:${join(home, "in")}`, "--qmp", clone.qmp)
      await Machine.verifies(clone, 1)
      await save(clone.qmp, join(home, "third"), "--live")
      await Machine.verifies(clone, 1)
      unharmed(clone)
      await follows(clone, source)

      const grandchild = await Machine.start(home, { ...options, incoming: "defer" })
      await restored(join(home, "third"), `unix:${join(home, "last")}`, "--qmp", grandchild.qmp)
      await Machine.verifies(grandchild)
      unharmed(grandchild)
    })

    it("stays paused if it was, also with --live", async () => {
      const home = directory()
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await source.execute("stop")
      const told = await save(source.qmp, join(home, "image"), "--live")
      assert.deepInclude(told, { guest: "postmigrate", captured: "paused" })
      assert.deepInclude(await source.execute("query-status"), { status: "postmigrate" })
      await source.execute("cont")
      await Machine.verifies(source, 1)
      unharmed(source)
    })
  }
)
