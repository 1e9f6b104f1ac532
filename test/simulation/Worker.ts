/**
 * One thread of a simulation: it changes the engine's source as it loads it, then runs the seeds it is given. With a
 * mutant it stops at the first seed that sees it.
 */
import { parentPort, workerData } from "node:worker_threads"
import { mutants } from "./Mutants.ts"
import * as Transforms from "./Transforms.ts"

/** What the thread is started with. */
export interface Given {
  readonly mutant: string | undefined
}

/** Seeds to run: from, up to but not including `to`. */
export interface Range {
  readonly from: number
  readonly to: number
  readonly readable: boolean
}

export interface Found {
  readonly seed: number
  readonly violations: ReadonlyArray<string>
}

export interface Ran {
  readonly range: Range
  /** Seeds that were run; fewer than asked for when a mutant was caught. */
  readonly seeds: number
  readonly steps: number
  readonly found: ReadonlyArray<Found>
  /** Of all hashes, whatever order they came in. */
  readonly digest: bigint
  readonly hash: string
  readonly coverage: ReadonlyArray<readonly [what: string, times: number]>
  readonly lines: ReadonlyArray<string>
  readonly outcome: string
  /** Milliseconds of processor time. */
  readonly cpuMillis: number
}

/** Every so many seeds one is run twice, and has to come to the same trace. */
const REPLAY_EVERY = 50

const { mutant } = workerData as Given
const changes = mutant === undefined ? [] : mutants[mutant]!.changes
// A mutant first: it is written against the source as it is.
Transforms.install([...changes, ...Transforms.limits, ...Transforms.omissions, ...Transforms.taps])
// Effect keeps an async context for each fiber that waits. Nobody looks at it here, and it costs a third of a run.
const builtin = process.getBuiltinModule.bind(process) as (id: string) => object | undefined
process.getBuiltinModule = ((id: string) => id === "node:async_hooks" ? undefined : builtin(id)) as never

const { run } = await import("./Run.ts")
const Scenario = await import("./Scenario.ts")

const runRange = (range: Range): Ran => {
  const coverage = new Map<string, number>()
  Transforms.shared.cover = (what) => {
    coverage.set(what, (coverage.get(what) ?? 0) + 1)
  }
  const found: Array<Found> = []
  const cpu = process.threadCpuUsage()
  let digest = 0n
  let hash = ""
  let steps = 0
  let seeds = 0
  let lines: ReadonlyArray<string> = []
  let outcome = ""
  for (let seed = range.from; seed < range.to; seed++) {
    const scenario = Scenario.draw(seed, Scenario.abilities)
    const result = run(scenario, range.readable)
    seeds++
    steps += result.steps
    digest ^= BigInt(`0x${result.hash}`)
    hash = result.hash
    outcome = result.outcome
    lines = result.lines
    const violations = [...result.violations]
    if (range.readable || seed % REPLAY_EVERY === 0) {
      const again = run(scenario, false)
      if (again.hash !== result.hash) violations.push(`does not replay: ${result.hash}, then ${again.hash}`)
    }
    if (violations.length > 0) {
      found.push({ seed, violations })
      if (mutant !== undefined) break
    }
  }
  const { system, user } = process.threadCpuUsage(cpu)
  const cpuMillis = (system + user) / 1000
  return { range, seeds, steps, found, digest, hash, coverage: Array.from(coverage), lines, outcome, cpuMillis }
}

parentPort!.on("message", (range: Range) => parentPort!.postMessage(runRange(range)))
