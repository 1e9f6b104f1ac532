/**
 * `node bench/qemu.ts [--rounds N] [--sizes 256,1024]`: what restoring an image by post-copy costs, beside what QEMU
 * itself offers: `loadvm`, a precopy stream from a file (`exec:cat`), and its own post-copy between two QEMUs. The sides
 * run in turn; medians are printed, with the aims. A JSON line for each round goes to stdout, the table to stderr.
 */
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as VirtualMachine from "./qemu/VirtualMachine.ts"
import { quantile } from "./Statistics.ts"

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, sizes: { type: "string", default: "256,1024" } }
})
const rounds = Number(values.rounds)
const sizes = values.sizes.split(",").map(Number)
const CLONES = 10
/** How long a command of ours may take. Milliseconds. */
const PATIENCE_MILLIS = 180_000
/** Between two looks at the memory of the clones' sources. */
const SAMPLE_MILLIS = 50
const entry = fileURLToPath(new URL("../bin/postcopy.js", import.meta.url))
const home = mkdtempSync(join(tmpdir(), "postcopy-bench-"))
process.on("exit", () => rmSync(home, { recursive: true, force: true }))

const milliseconds = (from: bigint, to: bigint) => Number(to - from) / 1e6

/** Runs a command of ours; its last object, and its pid. */
const postcopy = (...args: ReadonlyArray<string>) => {
  const child = spawn(entry, ["qemu", ...args, "--json"], { stdio: ["ignore", "pipe", "inherit"] })
  let out = ""
  child.stdout.on("data", (bytes: Buffer) => out += bytes.toString())
  const ended = new Promise<any>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      reject(new Error(`postcopy qemu ${args.join(" ")} has not ended within ${PATIENCE_MILLIS / 1000} s`))
    }, PATIENCE_MILLIS)
    child.on("close", (code) => {
      clearTimeout(timer)
      if (code === 0) resolve(JSON.parse(out.trim().split("\n").at(-1)!))
      else reject(new Error(`postcopy qemu ${args.join(" ")} ended with ${code}`))
    })
  })
  return { pid: child.pid!, ended }
}

/** Ticks of the first second behind the first one, of the thousand that a guest undisturbed would have. */
const ticksOfFirstSecond = ({ ticks }: VirtualMachine.VirtualMachine) => {
  const first = ticks[0]!
  return ticks.filter((tick) => milliseconds(first, tick) < 1000).length / 1000
}

/** Waits for a whole second of ticks; what the guest gave in it. */
const first = async (vm: VirtualMachine.VirtualMachine, from: bigint) => {
  await vm.until("the guest ticks", () => vm.ticks.length > 0)
  await vm.until("a second of ticks", () => milliseconds(vm.ticks[0]!, process.hrtime.bigint()) > 1100)
  return { firstTickMs: milliseconds(from, vm.ticks[0]!), tickShare: ticksOfFirstSecond(vm) }
}

/** A guest that has verified its memory once, kept in all the ways that are compared. */
const prepare = async (mebibytes: number) => {
  const disk = VirtualMachine.disk(home, `d${mebibytes}`)
  const vm = await VirtualMachine.start(home, { mebibytes, disk })
  await vm.until("the guest has passed over its memory twice", () => vm.passes() > 1)
  const from = vm.ticks.length
  const begun = process.hrtime.bigint()
  await vm.until("a second of ticks", () => milliseconds(begun, process.hrtime.bigint()) > 1000)
  const undisturbed = (vm.ticks.length - from) / 1000
  const image = join(home, `image${mebibytes}`)
  const saved = await postcopy("save", vm.qmp, image, "--resume").ended
  await vm.execute("stop")
  await vm.execute("human-monitor-command", { "command-line": "savevm kept" })
  const stream = join(home, `stream${mebibytes}`)
  await vm.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 })
  await vm.execute("migrate", { uri: `exec:cat > ${stream}` })
  await completed(vm)
  await vm.kill()
  // Three times the guest's memory was written: the first round is not to compete with its way to the disk.
  spawnSync("sync")
  return { mebibytes, disk, image, stream, undisturbed, storedBytes: saved.storedBytes as number }
}
type Prepared = Awaited<ReturnType<typeof prepare>>

const waiting = (kept: Prepared, ...more: ReadonlyArray<string>) =>
  VirtualMachine.start(home, {
    mebibytes: kept.mebibytes,
    disk: kept.disk,
    args: ["-snapshot", "-incoming", "defer", ...more]
  })

const completed = (vm: VirtualMachine.VirtualMachine) =>
  vm.until("its migration is completed", async () => {
    const { status } = await vm.execute("query-migrate")
    if (["cancelled", "failed", "postcopy-paused"].includes(status)) throw new Error(`a migration is ${status}`)
    return status === "completed"
  })

const checked = (vm: VirtualMachine.VirtualMachine) => {
  if (vm.bad()) throw new Error("the guest found a page that was not as it had left it")
}

const ours = async (kept: Prepared) => {
  const vm = await waiting(kept)
  const { report } = await postcopy("restore", kept.image, `unix:${vm.qmp}.in`, "--qmp", vm.qmp).ended
  const told = await first(vm, BigInt(report.startedNanos))
  checked(vm)
  const faults = vm.faults()
  await vm.kill()
  return { ...told, totalMs: report.totalMs as number, p50: quantile(faults, 0.5), p99: quantile(faults, 0.99) }
}

/** What the monitor says to a command of the old kind is an error, or nothing. */
const load = async (vm: VirtualMachine.VirtualMachine) => {
  const said = await vm.execute("human-monitor-command", { "command-line": "loadvm kept" })
  if (said !== "") throw new Error(`loadvm: ${said}`)
}

const loadvm = async (kept: Prepared) => {
  const vm = await VirtualMachine.start(home, { mebibytes: kept.mebibytes, disk: kept.disk, args: ["-S"] })
  const from = process.hrtime.bigint()
  await load(vm)
  await vm.execute("cont")
  const told = await first(vm, from)
  await vm.kill()
  return told
}

const fromFile = async (kept: Prepared) => {
  const vm = await waiting(kept)
  const from = process.hrtime.bigint()
  await vm.execute("migrate-incoming", { uri: `exec:cat ${kept.stream}` })
  await completed(vm)
  await vm.execute("cont")
  const told = await first(vm, from)
  await vm.kill()
  return told
}

/** QEMU's own post-copy of the same guest: nothing sent before the switch but what cannot be helped. */
const own = async (kept: Prepared) => {
  const source = await VirtualMachine.start(home, {
    mebibytes: kept.mebibytes,
    disk: kept.disk,
    args: ["-S"]
  })
  await load(source)
  const vm = await waiting(kept)
  for (const one of [source, vm]) {
    await one.execute("migrate-set-capabilities", { capabilities: [{ capability: "postcopy-ram", state: true }] })
  }
  await source.execute("migrate-set-parameters", { "max-bandwidth": 4096, "max-postcopy-bandwidth": 0 })
  await vm.execute("migrate-incoming", { uri: `unix:${vm.qmp}.in` })
  await source.execute("cont")
  await source.execute("migrate", { uri: `unix:${vm.qmp}.in` })
  await source.until("it migrates", async () => (await source.execute("query-migrate")).status === "active")
  const from = process.hrtime.bigint()
  await source.execute("migrate-start-postcopy")
  await completed(vm)
  const totalMs = milliseconds(from, process.hrtime.bigint())
  checked(vm)
  const faults = vm.faults()
  await source.kill()
  await vm.kill()
  return { totalMs, p50: quantile(faults, 0.5), p99: quantile(faults, 0.99) }
}

const pss = (pid: number): number => {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

/** Ten restores of one image at once: the most memory that the sources held together. */
const clones = async (kept: Prepared) => {
  // Ten guests that run would leave no processor to their sources: these stand still, and get all of their memory.
  const machines = await Promise.all(Array.from({ length: CLONES }, () => waiting(kept, "-S")))
  const sources = machines.map((vm) => postcopy("restore", kept.image, `unix:${vm.qmp}.in`, "--qmp", vm.qmp))
  let most = 0
  let over = false
  const all = Promise.all(sources.map(({ ended }) => ended)).then(() => {
    over = true
  })
  while (!over) {
    most = Math.max(most, sources.reduce((sum, { pid }) => sum + pss(pid), 0))
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MILLIS))
  }
  await all
  for (const vm of machines) {
    checked(vm)
    await vm.kill()
  }
  return most
}

const median = (list: ReadonlyArray<number>) => quantile(list, 0.5)
const row = (...cells: ReadonlyArray<string>) =>
  process.stderr.write(`${cells.map((cell) => cell.padEnd(26)).join("")}\n`)

for (const mebibytes of sizes) {
  const kept = await prepare(mebibytes)
  const results: Array<{ ours: any; loadvm: any; fromFile: any; own: any }> = []
  for (let round = 0; round < rounds; round++) {
    const sides = [["ours", ours], ["loadvm", loadvm], ["fromFile", fromFile], ["own", own]] as const
    const result: any = {}
    // Who goes first changes from round to round.
    for (let i = 0; i < sides.length; i++) {
      const [name, run] = sides[(i + round) % sides.length]!
      result[name] = await run(kept)
    }
    results.push(result)
    process.stdout.write(`${JSON.stringify({ mebibytes, round, ...result })}\n`)
  }
  const of = (side: "ours" | "loadvm" | "fromFile" | "own", figure: string) =>
    median(results.map((result) => result[side][figure]))
  const ms = (value: number) => `${value.toFixed(1)} ms`
  const us = (value: number) => `${value.toFixed(0)} µs`
  const against = (figure: string) => of("ours", figure) / of("own", figure)
  const held = await clones(kept)
  process.stdout.write(
    `${JSON.stringify({ mebibytes, clones: CLONES, pssBytes: held, storedBytes: kept.storedBytes })}\n`
  )
  row(`\n${mebibytes} MiB, ${rounds} rounds`, "ours", "QEMU", "ratio", "aim")
  row(
    "first tick",
    ms(of("ours", "firstTickMs")),
    `loadvm ${ms(of("loadvm", "firstTickMs"))}`,
    `exec:cat ${ms(of("fromFile", "firstTickMs"))}`,
    "≤ 10 ms"
  )
  row("all pages", ms(of("ours", "totalMs")), ms(of("own", "totalMs")), against("totalMs").toFixed(2), "≤ 1.2")
  row("fault to placed, p50", us(of("ours", "p50")), us(of("own", "p50")), against("p50").toFixed(2), "≤ 2")
  row("fault to placed, p99", us(of("ours", "p99")), us(of("own", "p99")), against("p99").toFixed(2), "≤ 3")
  const share = of("ours", "tickShare")
  row(
    "ticks of the first second",
    `${(share * 100).toFixed(1)} %`,
    `undisturbed ${(kept.undisturbed * 100).toFixed(1)} %`,
    (share / kept.undisturbed).toFixed(2),
    "≥ 95 %"
  )
  row(
    `${CLONES} clones, memory (PSS)`,
    `${(held / 2 ** 20).toFixed(0)} MiB`,
    `touched ${(kept.storedBytes / 2 ** 20).toFixed(0)} MiB`,
    (held / kept.storedBytes).toFixed(2),
    "< 1.5"
  )
}
process.exit(0)
