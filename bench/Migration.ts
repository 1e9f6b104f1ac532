/**
 * One migration, measured: by ours, through the commands a user has, and by the floor. Both take the same plan, move the
 * same number of pages over the same transport, touch the same pages in the same order, and give the same figures.
 */
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { askOnce } from "../src/cli/ControlClient.ts"
import * as Processes from "./Processes.ts"
import { program, scratch } from "./Programs.ts"
import type { Touched } from "./TouchedGuest.ts"

export interface Plan {
  readonly mebibytes: number
  /** Pages touched in random order; default none. */
  readonly touches?: number
  readonly threads?: number
  /** In ascending order instead; only ours. */
  readonly ascending?: boolean
  readonly transport: "unix" | "tcp"
  /** A relay delays each direction by half of it, ms. Over TCP only. */
  readonly roundTripMillis?: number
  readonly background: boolean
  readonly fill?: "random" | "zero" | "byte"
  /** The floor's source and daemon wait so long without sleeping, µs; default: they sleep. Only the floor. */
  readonly floorWaitMicros?: number
  /** The guest works in slices: its last at the source and its first at the destination give the downtime. */
  readonly steps?: boolean
  /** More arguments of `receive` and `migrate`. */
  readonly arguments?: { readonly run?: ReadonlyArray<string>; readonly receive?: ReadonlyArray<string> }
}

/** What a run gives; the names are those of the JSON lines. */
export interface Figures extends Partial<Touched> {
  /** From the guest's resumption until it has every page. */
  readonly totalMs: number
  readonly gibPerSecond: number
  readonly downtimeMs: number
  readonly sourceCpuPerGib: number
  readonly daemonCpuPerGib: number
  readonly guestCpuPerGib?: number
  readonly daemonKib: number
  readonly sourceGrowthKib?: number
}

const PAGES_PER_MIB = 256
const entry = fileURLToPath(new URL("../bin/postcopy.js", import.meta.url))
const guest = fileURLToPath(new URL("./TouchedGuest.ts", import.meta.url))

/** A relay to `port`; gives the port to connect to instead. */
const delayed = async (port: number, roundTripMillis: number) => {
  const relay = Processes.start(program("relay"), ["--to", `${port}`, "--micros", `${roundTripMillis * 500}`])
  const { listening } = await relay.line((line) => line.listening !== undefined)
  return { relay, port: listening as number }
}

/** Makes the host give the machine so much memory, to be used by what is started next: see `warm.c`. */
const warm = async (mebibytes: number) => {
  const toucher = Processes.start(program("warm"), [`${Math.ceil(mebibytes * 1.1) + 64}`])
  await toucher.line((line) => line.warm === true)
  await toucher.kill()
}

const perGib = (value: number, plan: Plan) => value / (plan.mebibytes / 1024)

export const floor = async (plan: Plan): Promise<Figures> => {
  const { roundTripMillis, threads = 1, touches = plan.steps === true ? 1 : 0 } = plan
  // The source's and the destination's.
  await warm(2 * plan.mebibytes)
  const run = Processes.start(program("floor"), [
    "--pages",
    `${plan.mebibytes * PAGES_PER_MIB}`,
    "--touch",
    `${touches}`,
    "--threads",
    `${threads}`,
    "--transport",
    roundTripMillis === undefined ? plan.transport : "via",
    ...(plan.floorWaitMicros === undefined ? [] : ["--wait", `${plan.floorWaitMicros}`]),
    ...(plan.background ? ["--background"] : [])
  ])
  let relay: Processes.Running | undefined
  try {
    if (roundTripMillis !== undefined) {
      const { listening } = await run.line((line) => line.listening !== undefined)
      const via = await delayed(listening, roundTripMillis)
      relay = via.relay
      run.child.stdin!.end(`${via.port}\n`)
    }
    const report = await run.line((line) => line.pages !== undefined)
    await run.ended
    return {
      ...report,
      gibPerSecond: plan.mebibytes / 1024 / (report.totalMs / 1000),
      sourceCpuPerGib: perGib(report.sourceCpu, plan),
      daemonCpuPerGib: perGib(report.daemonCpu, plan),
      daemonKib: report.daemonKiB
    }
  } finally {
    await run.kill()
    await relay?.kill()
  }
}

let serial = 0

export const ours = async (plan: Plan): Promise<Figures> => {
  const { fill = "random", roundTripMillis, steps = false, threads = 1, touches = 0 } = plan
  const number = ++serial
  const control = { source: join(scratch(), `s${number}`), destination: join(scratch(), `d${number}`) }
  const env = { BENCH_FILL: fill, BENCH_STEPS: steps ? "1" : "0" }
  const memory = ["--memory", `${plan.mebibytes}`, "--json"]
  const listen = plan.transport === "unix" && roundTripMillis === undefined
    ? `unix:${join(scratch(), `l${number}`)}`
    : "tcp:127.0.0.1:0"
  const source = Processes.start(entry, ["run", guest, "--control", control.source, ...memory], env)
  const destination = Processes.start(
    entry,
    ["receive", guest, listen, "--control", control.destination, ...memory, ...plan.arguments?.receive ?? []],
    env
  )
  let relay: Processes.Running | undefined
  try {
    await source.line((line) => line.event === "running")
    let { uri } = await destination.line((line) => line.event === "listening")
    if (roundTripMillis !== undefined) {
      const via = await delayed(Number(uri.split(":").at(-1)), roundTripMillis)
      relay = via.relay
      uri = `tcp:127.0.0.1:${via.port}`
    }
    const daemon = Processes.childrenOf(destination.pid)[0]!
    const followed = Processes.follow(daemon)
    const before = { source: Processes.usage(source.pid)!, guest: Processes.usage(destination.pid)! }
    const daemonBefore = Processes.usage(daemon)!
    await warm(plan.mebibytes)
    // Asked for before the guest is there: its touches begin the moment it runs.
    const touched: Promise<Partial<Touched>> = touches === 0 ? Promise.resolve({}) : Effect.runPromise(
      askOnce(
        control.destination,
        (procedures) =>
          procedures.Call({ request: JSON.stringify({ count: touches, threads, ascending: plan.ascending }) })
      )
    ).then((answer) => JSON.parse(answer))
    const migrate = Processes.start(entry, [
      "migrate",
      uri,
      "--control",
      control.source,
      "--json",
      ...(plan.background ? [] : ["--nobg"]),
      ...plan.arguments?.run ?? []
    ])
    const whole = plan.background || touches === plan.mebibytes * PAGES_PER_MIB
    const figures = await touched
    const reports = whole
      ? {
        source: (await migrate.line((line) => line.event === "completed")).report,
        destination: (await destination.line((line) => line.event === "completed")).report
      }
      : undefined
    const used = followed()
    const after = { source: Processes.usage(source.pid)!, guest: Processes.usage(destination.pid)! }
    const totalMs = reports === undefined
      ? figures.touchMs ?? 0
      : reports.destination.totalMs - reports.destination.downtimeMs
    const stepped = steps && reports !== undefined
      ? Number(BigInt(reports.destination.guestStepNanos) - BigInt(reports.source.guestStepNanos)) / 1e6
      : 0
    await migrate.kill()
    return {
      ...figures,
      totalMs,
      gibPerSecond: plan.mebibytes / 1024 / (totalMs / 1000),
      downtimeMs: stepped,
      sourceCpuPerGib: perGib(after.source.cpu - before.source.cpu, plan),
      daemonCpuPerGib: perGib(used.cpu - daemonBefore.cpu, plan),
      guestCpuPerGib: perGib(after.guest.cpu - before.guest.cpu, plan),
      daemonKib: used.peakKiB,
      sourceGrowthKib: after.source.peakKiB - before.source.peakKiB
    }
  } finally {
    await source.kill()
    await destination.kill()
    await relay?.kill()
  }
}
