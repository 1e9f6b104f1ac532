/**
 * A thread that takes page faults on purpose: it populates ranges of guest memory (MADV_POPULATE_READ) and may wait there
 * as long as the guest itself would. Neither the main thread nor libuv's pool may do that.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"
import type { LoadedBlock } from "../guests/Vcpu.ts"

/** Ranges as triples: index of the block, offset, length (bytes). */
export type Ranges = ReadonlyArray<readonly [block: number, offset: number, length: number]>

export interface PrefaultShape {
  /** Gives a function that completes when the ranges have been touched. */
  readonly make: (
    blocks: ReadonlyArray<LoadedBlock>
  ) => Effect.Effect<(ranges: Ranges) => Effect.Effect<void>, never, Scope.Scope>
}

const native: PrefaultShape = {
  make: (blocks) =>
    Effect.gen(function*() {
      let worker: Worker | undefined
      const waiting: Array<() => void> = []
      yield* Effect.addFinalizer(() => Effect.sync(() => void worker?.unref()))
      // The thread is started with the first fault it is asked to take: most migrations never ask.
      const thread = () => {
        if (worker !== undefined) return worker
        const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."))
        worker = new Worker(new URL(`./PrefaultThread${extension}`, import.meta.url), {
          workerData: blocks.map(({ memory }) => memory._tag === "Region" ? memory.token : undefined)
        })
        worker.unref()
        worker.on("message", () => waiting.shift()?.())
        return worker
      }
      return (ranges) =>
        Effect.callback<void>((resume) => {
          waiting.push(() => resume(Effect.void))
          thread().postMessage(ranges)
        })
    })
}

export const Prefault: Context.Reference<PrefaultShape> = Context.Reference("postcopy/services/Prefault", {
  defaultValue: () => native
})
