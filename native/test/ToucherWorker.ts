// The thread that faults: does one access to a shared region per message and answers with its result. It never serves.
import { parentPort, workerData } from "node:worker_threads"
import { Region, threadId } from "userfaultfd-napi"
import type { Touch } from "./Toucher.ts"

const region = Region.adopt(workerData as bigint)

const touch = (request: Touch): number | Uint8Array => {
  switch (request.kind) {
    case "read": {
      const into = new Uint8Array(request.length)
      const bytes = region.read(request.offset, into, 0, request.length)
      return bytes < 0 ? bytes : into
    }
    case "write":
      return region.write(request.offset, request.bytes, 0, request.bytes.length)
    case "madvise":
      return region.madvise(request.offset, request.length, request.advice)
    case "close":
      region.close()
      return 0
  }
}

parentPort!.on("message", (request: Touch) => parentPort!.postMessage(touch(request)))
parentPort!.postMessage(threadId())
