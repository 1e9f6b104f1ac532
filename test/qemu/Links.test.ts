/** Every way in which a waiting QEMU can be reached but the usual one, a unix socket. */
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory, start } from "../cli/Postcopy.ts"
import { socketpair } from "../e2e/Descriptors.ts"
import { follows, restored, save, unharmed } from "./Commands.ts"
import * as Machine from "./Machine.ts"

const options = { memoryMiB: 64, countMiB: 8 }
/** What `--qmp` would set. */
const ready = ["-nodefaults", "-global", "migration.x-postcopy-ram=on"]

const scene = async () => {
  const home = directory()
  const image = join(home, "image")
  const source = await Machine.start(home, options)
  await Machine.verifies(source, 1)
  await save(source.qmp, image)
  await source.kill()
  const goesOn = async (machine: Machine.Machine) => {
    await Machine.verifies(machine)
    unharmed(machine)
    await follows(machine, source)
    assert.deepInclude(await machine.execute("query-migrate"), { status: "completed" })
  }
  return { home, image, goesOn }
}

describe.skipIf(Machine.missing !== undefined)(
  Machine.title("a destination that waits"),
  { timeout: Machine.TIMEOUT },
  () => {
    it("at a port is restored into over tcp:", async () => {
      const { goesOn, home, image } = await scene()
      const destination = await Machine.start(home, { ...options, args: ready, incoming: "tcp:127.0.0.1:0" })
      const [{ host, port }] = (await destination.execute("query-migrate"))["socket-address"]
      const report = await restored(image, `tcp:${host}:${port}`)
      assert.isAbove(report.pages.onDemand, 0)
      await goesOn(destination)
    })

    it("at a descriptor that both were started with is restored into over fd:", async () => {
      const { goesOn, home, image } = await scene()
      const { close, here, there } = socketpair()
      const destination = await Machine.start(home, {
        ...options,
        args: ready,
        incoming: "fd:3",
        descriptors: [there]
      })
      const restoring = start(["qemu", "restore", "--json", image, "fd:3"], { descriptors: [here] })
      close()
      const ended = await restoring.ended
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.isAbove(ended.objects.at(-1).report.pages.onDemand, 0)
      await goesOn(destination)
    })
  }
)
