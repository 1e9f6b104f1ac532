/**
 * The destination's QEMU, as far as its monitor can make it ready: the capabilities of post-copy, the listening, or the
 * recovery of one whose source is gone. Checked first is what would only fail later, in the middle of the stream.
 */
import * as Effect from "effect/Effect"
import { Refused } from "../MigrationError.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import type { Manifest } from "./Manifest.ts"
import * as Monitor from "./Monitor.ts"
import type { QemuReason } from "./QemuError.ts"
import type { QmpClient } from "./QmpClient.ts"

/** A destination that waits with `-incoming defer`: its blocks' page sizes, as they are there. */
export const prepare = (
  qmp: QmpClient,
  manifest: Manifest,
  options: { readonly uri: string; readonly preempt: boolean }
): Effect.Effect<ReadonlyArray<QemuBlock>, QemuReason> =>
  Effect.gen(function*() {
    const state = yield* Monitor.runState(qmp)
    if (state !== "inmigrate") {
      return yield* new Refused({
        detail: `the destination's guest is ${state}: start its QEMU with -incoming defer, and restore once`
      })
    }
    const here = yield* Monitor.vcpus(qmp)
    if (manifest.vcpus !== null && manifest.vcpus !== here) {
      return yield* new Refused({
        detail: `the image has ${manifest.vcpus} vCPUs, the destination ${here}: start it with -smp ${manifest.vcpus}`
      })
    }
    const sizes = yield* Monitor.pageSizes(qmp)
    const missing = manifest.blocks.find(({ idstr }) => sizes.size > 0 && !sizes.has(idstr))
    if (missing !== undefined) {
      return yield* new Refused({
        detail: `the destination has no memory ${missing.idstr}: start it with the machine and devices of the image (` +
          `-machine ${manifest.machine}; it has ${[...sizes.keys()].join(", ")})`
      })
    }
    yield* Monitor.setCapabilities(qmp, yield* Monitor.capabilities(qmp), {
      "postcopy-ram": true,
      "postcopy-preempt": options.preempt
    })
    yield* qmp.execute("migrate-incoming", { uri: options.uri })
    return manifest.blocks.map(({ idstr, length, pageSize }) => ({
      idstr,
      length,
      pageSize: sizes.get(idstr) ?? pageSize
    }))
  })

/** A destination whose source is gone: makes it listen again. */
export const recover = (
  qmp: QmpClient,
  manifest: Manifest,
  uri: string
): Effect.Effect<ReadonlyArray<QemuBlock>, QemuReason> =>
  Effect.gen(function*() {
    const { status } = yield* Monitor.migration(qmp)
    if (status !== "postcopy-paused") {
      return yield* new Refused({
        detail:
          `the destination's migration is ${status}: only one that is postcopy-paused can be resumed, look at its info migrate`
      })
    }
    const sizes = yield* Monitor.pageSizes(qmp)
    yield* qmp.execute("migrate-recover", { uri })
    return manifest.blocks.map(({ idstr, length, pageSize }) => ({
      idstr,
      length,
      pageSize: sizes.get(idstr) ?? pageSize
    }))
  })
