/**
 * What is asked of a QEMU through its monitor: its state, the page sizes of its blocks, and migration capabilities and
 * limits, which are put back as they were.
 */
import * as Effect from "effect/Effect"
import { type QemuReason, QmpFailed } from "./QemuError.ts"
import { items, type Json, member, number, type QmpClient, text } from "./QmpClient.ts"

/** Between two looks at a migration. Milliseconds. */
const LOOK_MILLIS = 10

export interface MigrationInfo {
  /** `none`, `active`, `completed`, `failed`, `postcopy-paused` … */
  readonly status: string
  readonly error: string
}

export const migration = (qmp: QmpClient): Effect.Effect<MigrationInfo, QemuReason> =>
  Effect.map(qmp.execute("query-migrate"), (info) => ({
    status: text(member(info, "status")) || "none",
    error: text(member(info, "error-desc"))
  }))

/** `running`, `paused`, `postmigrate`, `inmigrate` … */
export const runState = (qmp: QmpClient): Effect.Effect<string, QemuReason> =>
  Effect.map(qmp.execute("query-status"), (status) => text(member(status, "status")))

export const vcpus = (qmp: QmpClient): Effect.Effect<number, QemuReason> =>
  Effect.map(qmp.execute("query-cpus-fast"), (cpus) => items(cpus).length)

const units: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }

/** Bytes of a page of each block, by name. */
export const pageSizes = (qmp: QmpClient): Effect.Effect<ReadonlyMap<string, number>, QemuReason> =>
  Effect.map(qmp.execute("human-monitor-command", { "command-line": "info ramblock" }), (told) => {
    const sizes = new Map<string, number>()
    for (const line of text(told).split("\n")) {
      const match = /^\s*(\S+)\s+(\d+) (B|KiB|MiB|GiB)\s+0x/.exec(line)
      if (match !== null) sizes.set(match[1]!, Number(match[2]) * units[match[3]!]!)
    }
    return sizes
  })

export type Capabilities = Readonly<Record<string, boolean>>

export const capabilities = (qmp: QmpClient): Effect.Effect<Capabilities, QemuReason> =>
  Effect.map(qmp.execute("query-migrate-capabilities"), (told) => {
    const found: Record<string, boolean> = {}
    for (const one of items(told)) found[text(member(one, "capability"))] = member(one, "state") === true
    return found
  })

/** Sets those that differ; one that QEMU does not know is an error only when it is wanted. */
export const setCapabilities = (
  qmp: QmpClient,
  now: Capabilities,
  wanted: Capabilities
): Effect.Effect<void, QemuReason> =>
  Effect.suspend(() => {
    const changes: Array<Json> = []
    for (const [capability, state] of Object.entries(wanted)) {
      if (now[capability] === undefined && state) {
        const detail = `this QEMU (${qmp.version}) has no migration capability ${capability}`
        return Effect.fail(new QmpFailed({ command: "migrate-set-capabilities", detail }))
      }
      if (now[capability] !== undefined && now[capability] !== state) changes.push({ capability, state })
    }
    if (changes.length === 0) return Effect.void
    return Effect.asVoid(qmp.execute("migrate-set-capabilities", { capabilities: changes }))
  })

/** Exactly these capabilities are on, all others off. */
export const only = (now: Capabilities, wanted: ReadonlyArray<string>): Capabilities => ({
  ...Object.fromEntries(Object.keys(now).map((name) => [name, false])),
  ...Object.fromEntries(wanted.map((name) => [name, true]))
})

/** Bytes a second that QEMU's own source may send. */
export const maxBandwidth = (qmp: QmpClient): Effect.Effect<number, QemuReason> =>
  Effect.map(qmp.execute("query-migrate-parameters"), (told) => number(member(told, "max-bandwidth")))

export const setMaxBandwidth = (qmp: QmpClient, bytesPerSecond: number): Effect.Effect<void, QemuReason> =>
  Effect.asVoid(qmp.execute("migrate-set-parameters", { "max-bandwidth": bytesPerSecond }))

const over = new Set(["completed", "failed", "cancelled", "none", "postcopy-paused"])

/** Waits until the migration has ended, in whatever way. */
export const ended = (qmp: QmpClient): Effect.Effect<MigrationInfo, QemuReason> =>
  Effect.gen(function*() {
    while (true) {
      const info = yield* migration(qmp)
      if (over.has(info.status)) return info
      yield* Effect.sleep(LOOK_MILLIS)
    }
  })
