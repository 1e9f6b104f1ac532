/**
 * QEMU's own post-copy between two of its processes, where it is installed: the same figures for a guest of the same
 * size that verifies its memory page by page. TCG, so that it runs where there is no /dev/kvm.
 */
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Processes from "./Processes.ts"
import { scratch } from "./Programs.ts"
import * as Monitor from "./qemu/Monitor.ts"

const QEMU = "qemu-system-x86_64"

/** Why it cannot run, for the case. */
export const missing = (): { readonly missing?: string } =>
  ([[QEMU, "qemu-system-x86"], ["as", "binutils"], ["ld", "binutils"]] as const)
    .filter(([tool]) => spawnSync(tool, ["--version"]).error !== undefined)
    .map(([tool, name]) => ({ missing: `${tool} is not installed (Debian: ${name})` }))[0] ?? {}

/** The boot sector, assembled; `cfg_start` and `cfg_count` stay as they are: all memory from 2 MiB on. */
const bootSector = (): string => {
  const from = fileURLToPath(new URL("../test/qemu/guest.S", import.meta.url))
  const object = join(scratch(), "guest.o")
  const image = join(scratch(), "guest.img")
  for (
    const [tool, ...args] of [
      ["as", "--32", "-o", object, from],
      ["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00", "-o", image, object]
    ] as const
  ) {
    const { status, stderr } = spawnSync(tool, args, { encoding: "utf8" })
    if (status !== 0) throw new Error(`${tool} refused test/qemu/guest.S: ${stderr}`)
  }
  // Firmware wants a disk of some size.
  const bytes = Buffer.alloc(2 ** 20)
  readFileSync(image).copy(bytes)
  writeFileSync(image, bytes)
  return image
}

let serial = 0

export const migrate = async (mebibytes: number) => {
  const number = ++serial
  const at = (name: string) => join(scratch(), `q${number}${name}`)
  writeFileSync(at("boot"), readFileSync(bootSector()))
  const machine = (name: string) => [
    "-machine",
    "pc,accel=tcg",
    "-cpu",
    "qemu64",
    "-m",
    `${mebibytes}`,
    "-display",
    "none",
    "-nodefaults",
    "-serial",
    `file:${at(`${name}-serial`)}`,
    "-serial",
    "null",
    "-drive",
    `file=${at("boot")},format=raw,if=ide,snapshot=on`,
    "-qmp",
    `unix:${at(`${name}-qmp`)},server=on,wait=off`
  ]
  const source = Processes.start(QEMU, machine("s"))
  const destination = Processes.start(QEMU, [...machine("d"), "-incoming", "defer"])
  try {
    const here = await Monitor.connect(source.child, at("s-qmp"))
    const there = await Monitor.connect(destination.child, at("d-qmp"))
    const enable = (capability: string) => ({ capability, state: true })
    await there.ask("migrate-set-capabilities", {
      capabilities: [enable("postcopy-ram"), enable("postcopy-blocktime")]
    })
    await here.ask("migrate-set-capabilities", { capabilities: [enable("postcopy-ram")] })
    // Next to nothing before the switchover, as ours: all memory is to follow the guest.
    await here.ask("migrate-set-parameters", { "max-bandwidth": 65_536, "max-postcopy-bandwidth": 0 })
    await Monitor.until(
      "the guest has passed over its memory",
      () => readFileSync(at("s-serial"), "utf8").includes("P00000001"),
      { of: source.child }
    )
    await there.ask("migrate-incoming", { uri: `unix:${at("link")}` })
    await here.ask("stop")
    await here.ask("migrate", { uri: `unix:${at("link")}` })
    // As soon as it may: the pages that the first round has sent by then are few.
    await Monitor.until(
      "the migration has begun",
      async () => ["active", "completed"].includes((await here.ask("query-migrate")).status)
    )
    await here.ask("migrate-start-postcopy")
    await Monitor.until("the guest has moved", async () => (await there.ask("query-status")).status !== "inmigrate")
    const begun = performance.now()
    await there.ask("cont").catch(() => {})
    await Monitor.until("all memory has come", async () => (await there.ask("query-migrate")).status === "completed")
    const totalMs = performance.now() - begun
    const report = await there.ask("query-migrate")
    const sent = await here.ask("query-migrate")
    const requests = sent.ram["postcopy-requests"] as number
    here.close()
    there.close()
    return { totalMs, requests, blockedUsPerPage: requests === 0 ? 0 : report["postcopy-blocktime"] * 1000 / requests }
  } finally {
    await source.kill()
    await destination.kill()
  }
}
