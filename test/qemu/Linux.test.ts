/** A whole operating system with processes that run, saved and restored: Debian's kernel. */
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory } from "../cli/Postcopy.ts"
import { restored, save, unharmed } from "./Commands.ts"
import * as LinuxGuest from "./LinuxGuest.ts"
import * as Machine from "./Machine.ts"

const missing = Machine.missing ?? LinuxGuest.missing

describe.skipIf(missing !== undefined)(
  missing === undefined ? "a Linux guest" : `a Linux guest (${missing})`,
  { timeout: Machine.TIMEOUT },
  () => {
    it("goes on in another QEMU: every checksum is right, and no tick is lost", async () => {
      const home = directory()
      const image = join(home, "image")
      const options = LinuxGuest.machine(home)
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await save(source.qmp, image)
      unharmed(source)
      const told = new Set(LinuxGuest.sums(source.console()))
      assert.strictEqual(told.size, 1)
      await source.kill()

      const destination = await Machine.start(home, { ...options, incoming: "defer" })
      const report = await restored(image, `unix:${join(home, "in")}`, "--qmp", destination.qmp)
      assert.isAbove(report.pages.onDemand, 0)
      await Machine.verifies(destination)
      unharmed(destination)
      const first = destination.passes[0]!
      assert.isAtLeast(first.number, source.passes.at(-1)!.number)
      assert.isAtLeast(first.ticks, source.passes.at(-1)!.ticks)
      assert.strictEqual(destination.ticks[0], (source.ticks.at(-1)! + 1) % 256)
      // They are of random bytes: no other guest has them.
      assert.deepStrictEqual(new Set(LinuxGuest.sums(destination.console())), told)
      assert.notMatch(destination.console(), /BUG:|Oops|Call Trace|panic|segfault/)
      assert.deepInclude(await destination.execute("query-migrate"), { status: "completed" })
    })
  }
)
