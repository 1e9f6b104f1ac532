// A thousand times everything opened and closed, in this thread and in others: descriptors, mappings and memory are the
// same afterwards.
import { once } from "node:events"
import * as fs from "node:fs"
import { Worker } from "node:worker_threads"
import { assert, describe, it } from "vitest"
import { cycle } from "./Cycle.ts"
import { collectGarbage } from "./Garbage.ts"
import { available } from "./Kernel.ts"

const CYCLES = 1000
const MIB = 1024 * 1024
/** What V8 and malloc may keep for themselves. A region left behind in each cycle would be 250 MiB. */
const SLACK = 16 * MIB
/** Of threads, whose isolates and stacks malloc keeps for the next ones; more of it under a sanitizer. */
const THREADS_SLACK = 128 * MIB

interface Held {
  readonly descriptors: number
  readonly mappings: number
  readonly resident: number
}

const held = async (): Promise<Held> => {
  await collectGarbage(() => false)
  const mappings = fs.readFileSync("/proc/self/maps", "utf8").split("\n")
  return {
    descriptors: fs.readdirSync("/proc/self/fd").length,
    // What the package maps; the collector's own arenas come and go.
    mappings: mappings.filter((line) => line.includes("memfd:") || line.includes("userfaultfd")).length,
    resident: process.memoryUsage.rss()
  }
}

const settled = async (before: Held): Promise<Held> => {
  let after = await held()
  await collectGarbage(() => after.resident <= before.resident)
  after = await held()
  return after
}

/** A machine with other work takes many times what a quiet one does. */
const timeout = 240_000

describe.skipIf(!available)("a thousand cycles", { timeout }, () => {
  it("in one thread leave nothing behind", async () => {
    for (let i = 0; i < CYCLES; i++) await cycle()
    const before = await held()
    for (let i = 0; i < CYCLES; i++) await cycle()
    const after = await settled(before)
    assert.strictEqual(after.descriptors, before.descriptors)
    assert.strictEqual(after.mappings, before.mappings)
    assert.isBelow(after.resident - before.resident, SLACK)
  })

  it("of threads that end with things open leave nothing behind", async () => {
    const run = async (threads: number): Promise<void> => {
      for (let i = 0; i < threads; i++) {
        const worker = new Worker(new URL("./CycleWorker.ts", import.meta.url), { workerData: 50 })
        await once(worker, "exit")
      }
    }
    await run(4)
    const before = await held()
    await run(20)
    const after = await settled(before)
    assert.strictEqual(after.descriptors, before.descriptors)
    assert.strictEqual(after.mappings, before.mappings)
    assert.isBelow(after.resident - before.resident, THREADS_SLACK)
  })
})
