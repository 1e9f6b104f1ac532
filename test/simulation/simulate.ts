/**
 * Runs seeds of the simulation on all cores and says what it found, what it reached, and what it never reached.
 *
 *   npm run simulate -- --seeds 10000 [--from 0]    a range; fails on a violation, and in a full run on a gap in coverage
 *   npm run simulate -- --seed 42                   one seed, with its trace
 *   npm run simulate -- --mutant B13 [--seeds 1000] a defect built back in: exit 0 when it is seen
 *   npm run simulate -- --mutants                   all of them, a line each
 */
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { Worker } from "node:worker_threads"
import * as Coverage from "./Coverage.ts"
import { mutants } from "./Mutants.ts"
import type { Given, Ran, Range } from "./Worker.ts"

/** Seeds from which on a run has to reach everything. */
const FULL_RUN = 10_000
/** Seeds given to a thread at once. */
const CHUNK = 100
/** Seeds within which a mutant has to be seen. */
const MUTANT_SEEDS = 1_000

const { values } = parseArgs({
  options: {
    seeds: { type: "string" },
    from: { type: "string", default: "0" },
    seed: { type: "string" },
    mutant: { type: "string" },
    mutants: { type: "boolean", default: false },
    threads: { type: "string", default: String(availableParallelism()) },
    coverage: { type: "boolean", default: false }
  }
})

const whole = (name: string, text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 0) throw new Error(`--${name} ${text}: a whole number is expected`)
  return n
}

/** Runs the seeds on `threads` threads; stops early once a mutant was seen. */
const runAll = (from: number, to: number, threads: number, given: Given, readable = false): Promise<Array<Ran>> =>
  new Promise((resolve, reject) => {
    const done: Array<Ran> = []
    let next = from
    let running = 0
    let stop = false
    const feed = (worker: Worker) => {
      if (stop || next >= to) {
        void worker.terminate()
        running--
        if (running === 0) resolve(done)
        return
      }
      const range: Range = { from: next, to: Math.min(to, next + CHUNK), readable }
      next = range.to
      worker.postMessage(range)
    }
    for (let i = 0; i < Math.min(threads, Math.ceil((to - from) / CHUNK)); i++) {
      const worker = new Worker(new URL("./Worker.ts", import.meta.url), { workerData: given })
      running++
      worker.on("error", reject)
      worker.on("message", (ran: Ran) => {
        done.push(ran)
        if (given.mutant !== undefined && ran.found.length > 0) stop = true
        feed(worker)
      })
      feed(worker)
    }
  })

const sum = (all: ReadonlyArray<Ran>, of: (ran: Ran) => number) => all.reduce((total, ran) => total + of(ran), 0)

const total = (all: ReadonlyArray<Ran>): Map<string, number> => {
  const coverage = new Map<string, number>()
  for (const ran of all) for (const [what, times] of ran.coverage) coverage.set(what, (coverage.get(what) ?? 0) + times)
  return coverage
}

const one = async (seed: number, mutant: string | undefined): Promise<number> => {
  const [ran] = await runAll(seed, seed + 1, 1, { mutant }, true)
  for (const line of ran!.lines) console.log(line)
  console.log(`seed ${seed}: ${ran!.outcome}; trace ${ran!.hash}`)
  for (const { violations } of ran!.found) for (const violation of violations) console.log(`VIOLATION ${violation}`)
  return ran!.found.length > 0 ? 1 : 0
}

const range = async (from: number, seeds: number, threads: number): Promise<number> => {
  const all = await runAll(from, from + seeds, threads, { mutant: undefined })
  const found = all.flatMap((ran) => ran.found).sort((a, b) => a.seed - b.seed)
  const coverage = total(all)
  const full = seeds >= FULL_RUN
  const gaps = Coverage.gaps(coverage)
  if (full || values.coverage) Coverage.print(coverage)
  for (const { seed, violations } of found.slice(0, 20)) console.log(`seed ${seed}: ${violations.join("; ")}`)
  for (const gap of gaps) console.log(gap)
  const digest = all.reduce((digest, ran) => digest ^ ran.digest, 0n).toString(16).padStart(16, "0")
  const ran = sum(all, (one) => one.seeds)
  console.log(
    `seeds ${from} to ${from + seeds - 1}: ${ran} run, ${found.length} with violations, ${gaps.length} gaps; ` +
      `${Math.round(sum(all, (one) => one.steps) / ran)} steps and ${
        (sum(all, (one) => one.cpuMillis) / ran).toFixed(2)
      } ms of processor time a seed; digest ${digest}`
  )
  return found.length > 0 || full && gaps.length > 0 ? 1 : 0
}

/** Looks for a mutant one seed after the other, so that the seed that saw it is the first. */
const hunt = async (mutant: string, from: number, seeds: number): Promise<number | undefined> => {
  for (let at = from; at < from + seeds; at += CHUNK) {
    const [ran] = await runAll(at, Math.min(from + seeds, at + CHUNK), 1, { mutant })
    const first = ran!.found[0]
    if (first !== undefined) {
      console.log(`${mutant}: seen by seed ${first.seed} (${first.seed - from + 1} seeds): ${first.violations[0]}`)
      return first.seed
    }
  }
  console.log(`${mutant}: NOT seen by ${seeds} seeds`)
  return undefined
}

const main = async (): Promise<number> => {
  const from = whole("from", values.from)
  const threads = Math.max(1, whole("threads", values.threads))
  if (values.mutant !== undefined && mutants[values.mutant] === undefined) {
    throw new Error(`--mutant ${values.mutant}: there are ${Object.keys(mutants).join(", ")}`)
  }
  if (values.seed !== undefined) return one(whole("seed", values.seed), values.mutant)
  const seeds = values.seeds === undefined ? MUTANT_SEEDS : whole("seeds", values.seeds)
  if (values.mutant !== undefined) return await hunt(values.mutant, from, seeds) === undefined ? 1 : 0
  if (!values.mutants) return range(from, seeds, threads)
  const names = Object.keys(mutants)
  let unseen = 0
  const hunters = Array.from({ length: threads }, async () => {
    for (let name = names.shift(); name !== undefined; name = names.shift()) {
      if (await hunt(name, from, seeds) === undefined) unseen++
    }
  })
  await Promise.all(hunters)
  console.log(`${Object.keys(mutants).length} mutants, ${unseen} not seen`)
  return unseen > 0 ? 1 : 0
}

process.exitCode = await main()
