/** Two QEMUs, one migrating to the other, with the relay between them. */
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory, start } from "../cli/Postcopy.ts"
import { follows, restored, unharmed } from "./Commands.ts"
import * as Machine from "./Machine.ts"

const options = { memoryMiB: 64 }

describe.skipIf(Machine.missing !== undefined)(Machine.title("the relay"), { timeout: Machine.TIMEOUT }, () => {
  for (const way of ["precopy", "postcopy", "postcopy-preempt"] as const) {
    it(`${way}: passes the guest on unharmed and keeps an image that can be restored`, async () => {
      const home = directory()
      const image = join(home, "image")
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      const destination = await Machine.start(home, { ...options, incoming: "defer" })
      const capabilities = way === "precopy" ? [] : way === "postcopy" ? ["postcopy-ram"] : ["postcopy-ram", way]
      for (const machine of [source, destination]) {
        await machine.execute("migrate-set-capabilities", {
          capabilities: capabilities.map((capability) => ({ capability, state: true }))
        })
      }
      await destination.execute("migrate-incoming", { uri: `unix:${join(home, "in")}` })
      const relay = start([
        "qemu",
        "relay",
        "--json",
        `unix:${join(home, "here")}`,
        `unix:${join(home, "in")}`,
        "--tee",
        image
      ])
      await relay.event("listening")
      // Slow enough that the switch comes while pages are missing.
      if (way !== "precopy") await source.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 20 })
      else await source.execute("stop")
      await source.execute("migrate", { uri: `unix:${join(home, "here")}` })
      if (way !== "precopy") {
        // The second channel is made while the first pages go.
        while (!((await source.execute("query-migrate")).ram?.transferred > 2 ** 17));
        await source.execute("migrate-start-postcopy")
        await source.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 33 })
      }
      const ended = await relay.ended
      assert.strictEqual(ended.code, 0, ended.stderr)
      const { report } = ended.objects.at(-1)
      assert.strictEqual(report.postcopy, way !== "precopy")
      assert.strictEqual(report.connections, way === "postcopy-preempt" ? 2 : 1)
      if (way === "precopy") await destination.execute("cont")
      else assert.isAbove(report.faults.requests, 0)
      await Machine.verifies(destination)
      unharmed(destination)
      assert.strictEqual(destination.ticks[0], (source.ticks.at(-1)! + 1) % 256)
      await destination.kill()

      const clone = await Machine.start(home, { ...options, incoming: "defer" })
      await restored(image, `unix:${join(home, "clone")}`, "--qmp", clone.qmp)
      await Machine.verifies(clone)
      unharmed(clone)
      assert.strictEqual(clone.ticks[0], (source.ticks.at(-1)! + 1) % 256)
    })
  }

  it("a migration that broke goes on through the same relay, and through one that has not seen it before", async () => {
    const home = directory()
    const at = (name: string) => `unix:${join(home, name)}`
    const source = await Machine.start(home, options)
    await Machine.verifies(source, 1)
    const destination = await Machine.start(home, { ...options, incoming: "defer" })
    for (const machine of [source, destination]) {
      await machine.execute("migrate-set-capabilities", {
        capabilities: [{ capability: "postcopy-ram", state: true }]
      })
    }
    const status = async (machine: Machine.Machine, wanted: string) => {
      while (true) {
        const told = await machine.execute("query-migrate")
        if (told.status === wanted) return
        assert.notInclude(["failed", "completed", "cancelled"], told.status)
      }
    }
    const paused = () => Promise.all([source, destination].map((machine) => status(machine, "postcopy-paused")))
    /** The handshake is over, and the guest gets pages. */
    const recovered = async () => {
      await Promise.all([source, destination].map((machine) => status(machine, "postcopy-active")))
      const from = destination.ticks.length
      await destination.until("more ticks", () => destination.ticks.length > from + 20)
    }
    // What nobody asks for takes for ever.
    await source.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 16, "max-postcopy-bandwidth": 2 ** 12 })
    await destination.execute("migrate-incoming", { uri: at("in") })
    const relay = start(["qemu", "relay", "--json", at("here"), at("in"), "--tee", join(home, "image")])
    await relay.event("listening")
    await source.execute("migrate", { uri: at("here") })
    await status(source, "active")
    await source.execute("migrate-start-postcopy")
    await destination.until("ticks", () => destination.ticks.length > 20)

    await source.execute("migrate-pause")
    await paused()
    // The destination's listener is there as long as nobody gives it another one.
    await source.execute("migrate", { uri: at("here"), resume: true })
    await recovered()

    relay.child.kill("SIGKILL")
    await paused()
    const other = start(["qemu", "relay", "--json", at("there"), at("again")])
    await other.event("listening")
    // The destination does not listen there yet: a connection that closed now would leave the source waiting for ever.
    await source.execute("migrate", { uri: at("there"), resume: true })
    await status(source, "postcopy-recover")
    await destination.execute("migrate-recover", { uri: at("again") })
    await recovered()
    await source.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 })
    const ended = await other.ended
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(ended.objects.at(-1).report.connections, 1)
    await Machine.verifies(destination)
    unharmed(destination)
    await follows(destination, source)
    assert.deepInclude(await destination.execute("query-migrate"), { status: "completed" })
  })

  it("a source that goes away before the switch leaves no image, and the guest where it was", async () => {
    const home = directory()
    const source = await Machine.start(home, options)
    await Machine.verifies(source, 1)
    const destination = await Machine.start(home, { ...options, incoming: `unix:${join(home, "in")}` })
    const relay = start([
      "qemu",
      "relay",
      "--json",
      `unix:${join(home, "here")}`,
      `unix:${join(home, "in")}`,
      "--tee",
      join(home, "image")
    ])
    await relay.event("listening")
    await source.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 16 })
    await source.execute("migrate", { uri: `unix:${join(home, "here")}` })
    // A connection that brings nothing is not a migration yet.
    while (!((await source.execute("query-migrate")).ram?.transferred > 2 ** 15));
    await source.execute("migrate_cancel")
    const ended = await relay.ended
    assert.strictEqual(ended.code, 70)
    assert.strictEqual(ended.error.tag, "LinkFailed")
    await Machine.verifies(source)
    unharmed(source)
    assert.notStrictEqual(await destination.exited, 0)
  })
})
