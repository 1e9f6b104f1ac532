/** The source of a restore goes away: the guest waits, and goes on with a new source that knows nothing but the image. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory, postcopy, start } from "../cli/Postcopy.ts"
import { restored, save, unharmed } from "./Commands.ts"
import * as Machine from "./Machine.ts"

const options = { memoryMiB: 64 }

/** An image of a machine that is gone, and a destination that waits. */
const scene = async () => {
  const home = directory()
  const image = join(home, "image")
  const source = await Machine.start(home, options)
  await Machine.verifies(source, 1)
  await save(source.qmp, image)
  await source.kill()
  const destination = await Machine.start(home, { ...options, incoming: "defer" })
  return { home, image, source, destination, to: `unix:${join(home, "in")}` }
}

/** Waits until QEMU says so of its migration: each answer is a question more. */
const migrationIs = async (machine: Machine.Machine, status: string) => {
  while (true) {
    const told = await machine.execute("query-migrate")
    if (told.status === status) return
    assert.notInclude(["failed", "completed"], told.status)
  }
}

describe.skipIf(Machine.missing !== undefined)(Machine.title("a broken restore"), { timeout: Machine.TIMEOUT }, () => {
  it("a source that is killed is replaced, twice, and the guest is unharmed", async () => {
    const { destination, home, image, source, to } = await scene()
    const first = start(["qemu", "restore", "--json", image, to, "--qmp", destination.qmp, "--nobg"])
    await first.event("loaded")
    await destination.until("ticks", () => destination.ticks.length > 20)
    first.child.kill("SIGKILL")
    await migrationIs(destination, "postcopy-paused")

    const second = start([
      "qemu",
      "restore",
      "--json",
      image,
      `unix:${join(home, "again")}`,
      "--qmp",
      destination.qmp,
      "--resume",
      "--nobg"
    ])
    const before = destination.ticks.length
    await destination.until("more ticks", () => destination.ticks.length > before + 20)
    second.child.kill("SIGKILL")
    await migrationIs(destination, "postcopy-paused")

    const report = await restored(image, `unix:${join(home, "third")}`, "--qmp", destination.qmp, "--resume")
    assert.isTrue(report.resumed)
    assert.isAbove(report.pages.had, 0)
    assert.strictEqual(report.pages.had + report.pages.onDemand + report.pages.background, report.pages.total)
    await Machine.verifies(destination)
    unharmed(destination)
    assert.strictEqual(destination.ticks[0], (source.ticks.at(-1)! + 1) % 256)
    assert.deepInclude(await destination.execute("query-migrate"), { status: "completed" })
  })

  it("a first signal sends what is left", async () => {
    const { destination, image, to } = await scene()
    const gentle = start(["qemu", "restore", "--json", image, to, "--qmp", destination.qmp, "--nobg"])
    await gentle.event("loaded")
    gentle.child.kill("SIGTERM")
    const ended = await gentle.ended
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(ended.objects.at(-1).event, "completed")
    await Machine.verifies(destination)
    unharmed(destination)
  })

  it("a second signal ends it at once, and the guest is resumed", async () => {
    const { destination: other, home, image } = await scene()
    const slow = start([
      "qemu",
      "restore",
      "--json",
      image,
      `unix:${join(home, "slow")}`,
      "--qmp",
      other.qmp,
      "--nobg",
      "--max-bandwidth",
      "1k"
    ])
    await slow.event("loaded")
    slow.child.kill("SIGINT")
    // Two signals at once may be one: the second one follows when the first was heard.
    await new Promise<void>((resolve) =>
      slow.child.stderr!.on("data", (text) => /second signal/.test(text) && resolve())
    )
    slow.child.kill("SIGINT")
    const cut = await slow.ended
    assert.strictEqual(cut.code, 70)
    assert.match(cut.error.message, /--resume/)
    await migrationIs(other, "postcopy-paused")
    await restored(image, `unix:${join(home, "rest")}`, "--qmp", other.qmp, "--resume")
    await Machine.verifies(other)
    unharmed(other)
  })

  it("only a destination that is paused is resumed, and only one that waits is restored into", async () => {
    const { destination, home, image } = await scene()
    const early = await postcopy(
      "qemu",
      "restore",
      "--json",
      image,
      `unix:${join(home, "in")}`,
      "--qmp",
      destination.qmp,
      "--resume"
    )
    assert.deepStrictEqual([early.code, early.error.tag], [1, "Refused"])
    await restored(image, `unix:${join(home, "in")}`, "--qmp", destination.qmp)
    const late = await postcopy(
      "qemu",
      "restore",
      "--json",
      image,
      `unix:${join(home, "in")}`,
      "--qmp",
      destination.qmp
    )
    assert.deepStrictEqual([late.code, late.error.tag], [1, "Refused"])
    await Machine.verifies(destination)
    unharmed(destination)
  })

  it("a capture that is interrupted leaves the guest as it was, and no image", async () => {
    const home = directory()
    const source = await Machine.start(home, { memoryMiB: 128 })
    await Machine.verifies(source, 1)
    const image = join(home, "image")
    const saving = start(["qemu", "save", "--json", source.qmp, image, "--max-bandwidth", "100k"])
    await new Promise<void>((resolve) => {
      const look = async (): Promise<void> =>
        (await source.execute("query-status").catch(() => ({}))).status === "running" ? look() : resolve()
      void look()
    })
    saving.child.kill("SIGINT")
    const ended = await saving.ended
    assert.strictEqual(ended.code, 130)
    assert.isFalse(existsSync(image))
    assert.deepInclude(await source.execute("query-status"), { status: "running" })
    await Machine.verifies(source)
    unharmed(source)
  })
})
