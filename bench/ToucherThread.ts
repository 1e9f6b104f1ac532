/** One of several faulting threads of the benchmarks' guest: touches its share of the pages and times each touch. */
import { parentPort, workerData } from "node:worker_threads"
import { monotonicNanos, Region } from "userfaultfd-napi"

const { nanos, order, start, thread, threads, token } = workerData as {
  readonly token: bigint
  readonly order: Uint32Array
  readonly nanos: Uint32Array
  readonly start: Int32Array
  readonly thread: number
  readonly threads: number
}
const region = Region.adopt(token)
const byte = new Uint8Array(1)
parentPort!.postMessage("ready")
Atomics.wait(start, 0, 0)
for (let i = thread; i < order.length; i += threads) {
  const from = monotonicNanos()
  region.read(order[i]! * 4096, byte, 0, 1)
  nanos[i] = Math.min(monotonicNanos() - from, 0xffffffff)
}
region.close()
parentPort!.postMessage("done")
