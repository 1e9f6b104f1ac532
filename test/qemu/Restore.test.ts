/** Images of a real QEMU, saved and restored: no page wrong, no tick lost. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { directory, postcopy } from "../cli/Postcopy.ts"
import { restored, save, unharmed } from "./Commands.ts"
import * as Machine from "./Machine.ts"

/** What a case does to the machine; `unharmed` is asserted of all of them. */
interface Case extends Omit<Machine.Options, "incoming"> {
  readonly what: string
  readonly live?: boolean
}

const virtio = ["-vga", "virtio", "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"]

const cases: ReadonlyArray<Case> = [
  { what: "pc, 64 MiB, no default devices", memoryMiB: 64 },
  { what: "pc, 64 MiB, no default devices, captured live", memoryMiB: 64, live: true },
  { what: "pc, 128 MiB, default devices", memoryMiB: 128, args: [] },
  { what: "q35, 128 MiB, default devices", memoryMiB: 128, machine: "q35", args: [] },
  { what: "q35, 64 MiB, 2 vCPUs, captured live", memoryMiB: 64, machine: "q35", vcpus: 2, args: [], live: true },
  { what: "pc, 256 MiB, 2 vCPUs, virtio", memoryMiB: 256, countMiB: 64, vcpus: 2, args: virtio },
  { what: "q35, 1 GiB, virtio", memoryMiB: 1024, countMiB: 256, machine: "q35", args: virtio }
]

describe.skipIf(Machine.missing !== undefined)(
  Machine.title("a restored machine"),
  { timeout: Machine.TIMEOUT },
  () => {
    for (const { live = false, what, ...options } of cases) {
      it(`${what}: verifies every page and goes on with the next tick`, async () => {
        const home = directory()
        const image = join(home, "image")
        const source = await Machine.start(home, options)
        await Machine.verifies(source, 1)
        const told = await save(source.qmp, image, ...(live ? ["--live"] : []))
        assert.strictEqual(told.guest, live ? "running" : "postmigrate")
        if (live) await Machine.verifies(source, 1)
        unharmed(source)
        const { bad, number } = source.passes.at(-1)!
        assert.strictEqual(bad, 0)
        await source.kill()

        const destination = await Machine.start(home, { ...options, incoming: "defer" })
        const report = await restored(image, `unix:${join(home, "in")}`, "--qmp", destination.qmp)
        assert.strictEqual(report.pages.onDemand + report.pages.background, report.pages.total)
        assert.isAbove(report.pages.onDemand, 0)
        assert.isNumber(report.loadedMs)
        await Machine.verifies(destination)
        unharmed(destination)
        const first = destination.passes[0]!
        if (live) assert.isAtMost(first.number, number + 1)
        else {
          assert.isAtLeast(first.number, number)
          assert.strictEqual(destination.ticks[0], (source.ticks.at(-1)! + 1) % 256)
        }
        assert.deepInclude(await destination.execute("query-migrate"), { status: "completed" })
      })
    }

    it("requested pages take a channel of their own where both ends have it", async () => {
      const home = directory()
      const image = join(home, "image")
      const options = { memoryMiB: 64 }
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await save(source.qmp, image)
      await source.kill()
      const destination = await Machine.start(home, { ...options, incoming: "defer" })
      const report = await restored(image, `unix:${join(home, "in")}`, "--qmp", destination.qmp, "--preempt")
      assert.isAbove(report.pages.onDemand, 0)
      assert.strictEqual(report.pages.onDemand + report.pages.background, report.pages.total)
      await Machine.verifies(destination)
      unharmed(destination)
      assert.deepInclude(await destination.execute("query-migrate"), { status: "completed" })
    })

    it.skipIf(Machine.hugePages === undefined)("a machine of 2 MiB pages is asked for them whole", async () => {
      using _ = Machine.reserveHugePages(40)
      const home = directory()
      const image = join(home, "image")
      const backend = "memory-backend-memfd,id=mem0,size=64M,hugetlb=on,hugetlbsize=2M"
      const options = { memoryMiB: 64, machine: "pc,memory-backend=mem0", args: ["-nodefaults", "-object", backend] }
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await save(source.qmp, image)
      await source.kill()
      const info = await postcopy("qemu", "info", "--json", image)
      assert.deepInclude(info.objects[0].blocks[0], { idstr: "mem0", pageSize: 2 * 2 ** 20 })
      const destination = await Machine.start(home, { ...options, incoming: "defer" })
      const report = await restored(image, `unix:${join(home, "in")}`, "--qmp", destination.qmp)
      assert.isAbove(report.pages.onDemand, 511)
      await Machine.verifies(destination)
      unharmed(destination)
    })

    it("the source goes on where it was, with --resume and after a capture that failed", async () => {
      const home = directory()
      const source = await Machine.start(home, { memoryMiB: 64 })
      await Machine.verifies(source, 1)
      const told = await save(source.qmp, join(home, "image"), "--resume")
      assert.strictEqual(told.guest, "running")
      assert.isAbove(told.stoppedMs, 0)
      await Machine.verifies(source, 1)
      const capabilities = await source.execute("query-migrate-capabilities")
      assert.deepStrictEqual(capabilities.filter(({ state }: { state: boolean }) => state), [])
      // The image is there already: nothing may happen to it or to the guest.
      const again = await postcopy("qemu", "save", "--json", source.qmp, join(home, "image"))
      assert.deepStrictEqual([again.code, again.error.tag], [1, "ImageFailed"])
      // A place that cannot be written.
      const nowhere = await postcopy("qemu", "save", "--json", source.qmp, join(home, "none", "image"))
      assert.deepStrictEqual([nowhere.code, nowhere.error.tag], [75, "ImageFailed"])
      assert.deepInclude(await source.execute("query-status"), { status: "running" })
      await Machine.verifies(source, 1)
      unharmed(source)
      assert.deepStrictEqual(readdirSync(home).filter((name) => name.includes("partial")), [])
    })

    it("one image restores many machines at once, over a socket and exec:, and a recording is replayed", async () => {
      const home = directory()
      const image = join(home, "image")
      const options = { memoryMiB: 64, countMiB: 16 }
      const source = await Machine.start(home, options)
      await Machine.verifies(source, 1)
      await save(source.qmp, image)
      await source.kill()
      const checked = await postcopy("qemu", "verify", image)
      assert.strictEqual(checked.code, 0, checked.stderr)

      const recording = join(home, "touched")
      const overUnix = async () => {
        const clone = await Machine.start(home, { ...options, incoming: "defer" })
        const to = `unix:${join(home, "one")}`
        const report = await restored(image, to, "--qmp", clone.qmp, "--record", recording)
        return { clone, report }
      }
      const overExec = async () => {
        const { entry } = await import("../cli/Postcopy.ts")
        const clone = await Machine.start(home, {
          ...options,
          args: ["-nodefaults", "-global", "migration.x-postcopy-ram=on"],
          incoming: `exec:exec ${entry} qemu restore ${image} - 2> ${join(home, "exec.err")}`
        })
        await clone.until("the first pass", () => clone.passes.length > 0)
        return { clone, report: undefined }
      }
      const [one, two] = await Promise.all([overUnix(), overExec()])
      for (const { clone } of [one, two]) {
        await Machine.verifies(clone)
        unharmed(clone)
        assert.strictEqual(clone.ticks[0], (source.ticks.at(-1)! + 1) % 256)
      }
      const recorded = readFileSync(recording, "utf8").trim().split("\n")
      // Pages that were on their way already are asked for too: touched, and not sent on demand.
      assert.isAtLeast(recorded.length, one.report.pages.onDemand)
      assert.strictEqual(new Set(recorded).size, recorded.length)
      assert.match(recorded[0]!, /^\S+ 0x[0-9a-f]+$/)

      const third = await Machine.start(home, { ...options, incoming: "defer" })
      const replayed = await restored(
        image,
        `unix:${join(home, "three")}`,
        "--qmp",
        third.qmp,
        "--replay",
        recording
      )
      await Machine.verifies(third)
      unharmed(third)
      assert.strictEqual(replayed.pages.onDemand + replayed.pages.background, replayed.pages.total)
    })

    it("a damaged image is refused before anything is sent, or by verify", async () => {
      const home = directory()
      const image = join(home, "image")
      const source = await Machine.start(home, { memoryMiB: 64, countMiB: 8 })
      await Machine.verifies(source, 1)
      await save(source.qmp, image)
      const flip = (name: string, at: number) => {
        const bytes = readFileSync(join(image, name))
        bytes[at]! ^= 1
        writeFileSync(join(image, name), bytes)
      }
      flip("memory", 2 * 2 ** 20 + 5)
      const verified = await postcopy("qemu", "verify", "--json", image)
      assert.deepStrictEqual([verified.code, verified.error.tag], [65, "ImageFailed"])
      flip("memory", 2 * 2 ** 20 + 5)
      assert.strictEqual((await postcopy("qemu", "verify", image)).code, 0)
      for (const name of ["devices", "pages"]) {
        flip(name, 17)
        const refused = await postcopy("qemu", "restore", "--json", image, `unix:${join(home, "nobody")}`)
        assert.deepStrictEqual([refused.code, refused.error.tag], [65, "ImageFailed"], name)
        flip(name, 17)
      }
      // The other way round: the machine is not the image's.
      const other = await Machine.start(home, { memoryMiB: 64, vcpus: 2, incoming: "defer" })
      const refused = await postcopy("qemu", "restore", "--json", image, `unix:${join(home, "in")}`, "--qmp", other.qmp)
      assert.strictEqual(refused.code, 1)
      assert.match(refused.error.message, /-smp 1/)
    })
  }
)
