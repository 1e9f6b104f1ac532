// A worker thread that touches a region while the test's own thread serves the faults.
import { once } from "node:events"
import { Worker } from "node:worker_threads"
import type { Region } from "userfaultfd-napi"

export type Touch =
  | { readonly kind: "read"; readonly offset: number; readonly length: number }
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "madvise"; readonly offset: number; readonly length: number; readonly advice: number }
  | { readonly kind: "close" }

export class Toucher {
  private readonly worker: Worker
  /** The kernel's id of the thread. */
  readonly threadId: number

  private constructor(worker: Worker, threadId: number) {
    this.worker = worker
    this.threadId = threadId
  }

  static async start(region: Region): Promise<Toucher> {
    const worker = new Worker(new URL("./ToucherWorker.ts", import.meta.url), { workerData: region.share() })
    const [threadId] = await once(worker, "message") as [number]
    return new Toucher(worker, threadId)
  }

  /** Starts one access; the answer may need a fault to be served first. One at a time. */
  async run(touch: Touch): Promise<number | Uint8Array> {
    const answer = once(this.worker, "message") as Promise<[number | Uint8Array]>
    this.worker.postMessage(touch)
    return (await answer)[0]
  }

  /** The byte at `offset`. */
  async byte(offset: number): Promise<number> {
    const bytes = await this.run({ kind: "read", offset, length: 1 })
    return typeof bytes === "number" ? bytes : bytes[0]!
  }

  async end(): Promise<void> {
    const exited = once(this.worker, "exit")
    this.worker.postMessage({ kind: "close" })
    await once(this.worker, "message")
    await this.worker.terminate()
    await exited
  }
}
