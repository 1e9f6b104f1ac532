// A thread that leaves the last of its cycles open.
import { workerData } from "node:worker_threads"
import { cycle } from "./Cycle.ts"

for (let i = 1; i < (workerData as number); i++) await cycle()
await cycle(false)
process.exit(0)
