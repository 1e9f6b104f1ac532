/** Entry of the prefault thread: gets tokens of regions once, then lists of ranges; answers each list when it is populated. */
import { parentPort, workerData } from "node:worker_threads"
import * as Binding from "../native/Binding.ts"
import type { Ranges } from "./Prefault.ts"

const addon = Binding.require()
const regions = (workerData as ReadonlyArray<bigint | undefined>).map((token) =>
  token === undefined ? undefined : addon.Region.adopt(token)
)

parentPort!.on("message", (ranges: Ranges) => {
  for (const [block, offset, length] of ranges) {
    regions[block]?.madvise(offset, length, addon.constants.MADV_POPULATE_READ)
  }
  parentPort!.postMessage(ranges.length)
})
