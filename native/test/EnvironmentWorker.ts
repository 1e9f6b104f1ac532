// A thread that leaves things open in the way it is told, so that the end of its environment has to clean up.
import { parentPort, workerData } from "node:worker_threads"
import * as Uffd from "userfaultfd-napi"
import { wasmMemory } from "./WasmMemory.ts"

const { constants, pageSize, Region } = Uffd

export type Scenario =
  | "exit with everything open"
  | "be terminated with everything open"
  | "be terminated in a callback"
  | "throw in a callback"
  | "share a buffer"
  | "share a memory"
  | "hold"

const { scenario, token, stop } = workerData as {
  readonly scenario: Scenario
  readonly token: bigint | undefined
  /** Set to 1 and notified when a callback is under way. */
  readonly stop: Int32Array<SharedArrayBuffer>
}

// Also reachable, so that nothing was collected before.
const kept: Array<unknown> = []
const keep = <A>(value: A): A => {
  kept.push(value)
  return value
}

const openEverything = (): void => {
  const [a, b] = keep(Uffd.socketpair(constants.SOCK_STREAM))
  const poller = keep(new Uffd.Poller(a))
  poller.watch(constants.READABLE, () => {})
  keep(new Uffd.Poller(b))
  // One whose close has begun and one that is collected at its leisure.
  new Uffd.Poller(b).close()
  new Uffd.Poller(b)
  keep(keep(Region.memfd("kept", pageSize)).buffer())
  keep(Region.ofBuffer(new ArrayBuffer(pageSize)))
  if (!Uffd.probe().userModeOnly.available) return
  const uffd = keep(Uffd.open({ userModeOnly: true, required: constants.FEATURE_EVENT_UNMAP })).descriptor
  const region = keep(Region.anonymous(pageSize))
  Uffd.register(uffd, region.address, region.length, constants.MODE_MISSING)
  keep(new Uffd.FaultPoller(uffd, new Float64Array(4))).start(() => {})
}

const inCallback = (body: () => void): void => {
  const [a, b] = keep(Uffd.socketpair(constants.SOCK_STREAM))
  keep(new Uffd.Poller(a)).watch(constants.READABLE, body)
  Uffd.write(b, new Uint8Array([1]), 0, 1)
}

switch (scenario) {
  case "exit with everything open":
    openEverything()
    process.exit(7)
    break
  case "be terminated with everything open":
    openEverything()
    parentPort!.postMessage("open")
    break
  case "be terminated in a callback":
    openEverything()
    inCallback(() => {
      Atomics.store(stop, 0, 1)
      Atomics.notify(stop, 0)
      for (;;);
    })
    break
  case "throw in a callback":
    openEverything()
    inCallback(() => {
      throw new Error("from the callback")
    })
    break
  case "share a buffer": {
    const region = keep(Region.ofBuffer(new ArrayBuffer(3 * pageSize)))
    region.write(0, new Uint8Array(pageSize).fill(9), 0, pageSize)
    region.protectNone(Math.ceil(region.address / pageSize) * pageSize - region.address, pageSize)
    parentPort!.postMessage(region.share())
    parentPort!.once("message", () => process.exit(0))
    break
  }
  case "share a memory": {
    const region = keep(Region.ofBuffer(keep(wasmMemory(1, 1)).buffer))
    parentPort!.postMessage(region.share())
    parentPort!.once("message", () => process.exit(0))
    break
  }
  case "hold":
    keep(Region.adopt(token!))
    parentPort!.postMessage("held")
    parentPort!.once("message", () => process.exit(0))
    break
}
