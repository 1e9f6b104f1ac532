/**
 * Changes to the engine's source as it is loaded: nothing of the simulation is in `src/`. Three kinds: limits that a run
 * may shrink, taps that say which transition was taken, and mutants, which build a known defect back in. Each names the
 * text it changes, and fails when that text is gone or not unique: a change that no longer applies proves nothing.
 */
import { registerHooks } from "node:module"
import { fileURLToPath } from "node:url"

export interface Change {
  /** Below `src/`. */
  readonly file: string
  readonly from: string
  readonly to: string
}

/** What transformed code and the simulation share. */
export interface Shared {
  /** Sets a limit of the engine, by name. */
  readonly limits: Map<string, Array<(value: number) => void>>
  cover: (what: string) => void
}

export const shared: Shared = ((globalThis as { postcopySimulation?: Shared }).postcopySimulation ??= {
  limits: new Map(),
  cover: () => {}
})

const GLOBAL = "globalThis.postcopySimulation"

/** A constant becomes a variable that `Shared.limits` can set. */
const limit = (file: string, name: string, value: string): ReadonlyArray<Change> => [
  { file, from: `const ${name} = ${value}\n`, to: `let ${name} = ${value}\n` },
  {
    file,
    from: "",
    to:
      `\n{ const all = ${GLOBAL}.limits; all.set("${name}", [...(all.get("${name}") ?? []), (v) => { ${name} = v }]) }\n`
  }
]

const tap = (expression: string) => `${GLOBAL}.cover(${expression});`

/** The limits a scenario draws. */
export const limits: ReadonlyArray<Change> = [
  ...limit("SendGuest.ts", "TARGET_PAGE_SIZE", "4096"),
  ...limit("ReceiveGuest.ts", "TARGET_PAGE_SIZE", "4096"),
  ...limit("actors/SourceSender.ts", "BACKGROUND_CHUNK", "32 * 1024"),
  ...limit("actors/SourceSender.ts", "DEMAND_CHUNK", "64 * 1024"),
  ...limit("actors/LaneFill.ts", "MAX_LOOKED", "128"),
  ...limit("actors/SourceSender.ts", "TURN_BYTES", "512 * 1024"),
  ...limit("actors/SourceSender.ts", "FIRST_STEPS_MILLIS", "100"),
  ...limit("actors/DaemonPages.ts", "READ_BYTES", "128 * 1024"),
  ...limit("actors/PageArrivals.ts", "PAGES_BETWEEN_LOOKS", "16"),
  ...limit("actors/PageArrivals.ts", "ZEROS_BETWEEN_LOOKS", "256"),
  ...limit("actors/FaultIntake.ts", "MAX_REQUESTS", "33280"),
  ...limit("actors/RequestBacklog.ts", "PENDING_SIZE_MAX", "532480"),
  ...limit("actors/RequestBacklog.ts", "MAX_ASKED", "4000"),
  ...limit("actors/RequestBacklog.ts", "MESSAGE_ROOM", "64 * 1024"),
  ...limit("actors/PageInstaller.ts", "MAX_ZEROPAGE", "64 * 1024"),
  ...limit("actors/UmemDaemon.ts", "MAX_TRIGGER_PAGES", "256"),
  ...limit("actors/UmemDaemon.ts", "RETRY_MILLIS", "1"),
  ...limit("services/AnswerReference.ts", "CHUNK", "32 * 1024"),
  ...limit("services/AnswerReference.ts", "MOST_PUSHED", "128"),
  ...limit("services/FetchReference.ts", "MOST_BYTES", "65536"),
  ...limit("services/FetchReference.ts", "MOST_ZEROS", "256"),
  ...limit("services/AnswerReference.ts", "MOST_LOOKS", "256"),
  ...limit("services/FetchReference.ts", "MOST_LOOKS", "256"),
  ...limit("protocol/umem/RamStream.ts", "BUFFER_BYTES", "128 * 1024")
]

/** What is left out of a run: a rehearsal is a migration of its own, and costs more than all the rest. */
export const omissions: ReadonlyArray<Change> = [
  {
    file: "Rehearsal.ts",
    from: "export const rehearse: Effect.Effect<void> = Stage.doubles.pipe(",
    to: "export const rehearse: Effect.Effect<void> = Effect.void ?? Stage.doubles.pipe("
  }
]

/** A state machine tells each step that it takes: `key` is an expression of `before` and `event`. */
const machine = (file: string, key: string): ReadonlyArray<Change> => [
  { file, from: "export const transition = (", to: "const untapped = (" },
  {
    file,
    from: "",
    to: `
export const transition = (before, event) => {
  ${tap(key)}
  return untapped(before, event)
}
`
  }
]

/** What is told to `Shared.cover`: the names are those of `Coverage`. */
export const taps: ReadonlyArray<Change> = [
  ...machine(
    "protocol/umem/MigrationState.ts",
    "`Migration ${before.status}/${before.phase} ${event._tag}${event.result === undefined ? '' : ` ${event.result}`}`"
  ),
  ...machine(
    "protocol/umem/PoState.ts",
    "`PO ${before} ${event._tag}${event._tag === 'Tick' ? ` ${event.background ? 'background' : 'nobg'} ${event.dirty > 0 ? 'dirty' : 'clean'}` : ''}`"
  ),
  ...machine("protocol/umem/PisState.ts", "`PIS ${before} ${event._tag}`"),
  ...machine(
    "protocol/umem/UmemState.ts",
    "`UMEM ${before} ${event._tag}${event.complete === undefined ? '' : ` ${event.complete}`}`"
  ),
  {
    file: "protocol/umem/PageTable.ts",
    from: "",
    to: `
for (const name of ["fault", "received"]) {
  const untapped = PageTable.prototype[name]
  PageTable.prototype[name] = function(page) {
    const outcome = untapped.call(this, page)
    ${tap("`PageTable ${name} ${outcome}`")}
    return outcome
  }
}
{
  const untapped = PageTable.prototype.remove
  PageTable.prototype.remove = function(first, count = 1) {
    for (let host = first; host < Math.min(first + count, this.hostPages); host++) {
      const was = this.isRemoved(host) ? "removed" : this.isInstalled(host) ? "installed" : this.ready(host) ? "complete" : "missing"
      ${tap("`PageTable remove ${was}`")}
    }
    untapped.call(this, first, count)
    if (this.waiters.length > 0) ${tap("\"PageTable remove waited for\"")}
    if (this.newTargets.length > 0) ${tap("\"PageTable remove untold\"")}
  }
}
`
  }
]

/** The source with every change made that is meant for its file. */
export const apply = (file: string, source: string, changes: ReadonlyArray<Change>): string => {
  let changed = source
  for (const { from, to } of changes.filter((change) => change.file === file)) {
    if (from === "") {
      changed += to
      continue
    }
    const pieces = changed.split(from)
    if (pieces.length !== 2) {
      throw new Error(
        `src/${file} has ${pieces.length - 1} times what a change of the simulation expects once: ${from}`
      )
    }
    changed = pieces.join(to)
  }
  return changed
}

const root = fileURLToPath(new URL("../../src/", import.meta.url))

/** Applies the changes to whatever of `src/` is loaded from now on. */
export const install = (changes: ReadonlyArray<Change>): void => {
  registerHooks({
    load: (url, context, next) => {
      const loaded = next(url, context)
      if (!url.startsWith("file:") || loaded.source === undefined || loaded.source === null) return loaded
      const path = fileURLToPath(url)
      if (!path.startsWith(root)) return loaded
      const source = typeof loaded.source === "string"
        ? loaded.source
        : Buffer.from(loaded.source as Uint8Array).toString()
      return { ...loaded, source: apply(path.slice(root.length), source, changes) }
    }
  })
}
