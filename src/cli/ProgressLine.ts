/**
 * The one line that shows on a terminal how far a migration is: phase, bar, rate, requests in flight, latencies, what
 * remains. A narrow terminal gets the most important of it; colours and block characters only where they are welcome.
 */
import type { Observation } from "../Observation.ts"

export interface Terminal {
  readonly columns: number
  readonly color: boolean
  /** Whether characters beyond ASCII show as they are meant. */
  readonly unicode: boolean
}

/** What a terminal is like, by its environment: NO_COLOR, TERM, and the locale. */
export const terminalOf = (env: NodeJS.ProcessEnv, columns: number | undefined): Terminal => ({
  columns: Math.max(20, columns || 80),
  color: (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb",
  unicode: /utf-?8/i.test(env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "")
})

/** Cells of the bar. */
const BAR = 24

const phases: Record<Observation["status"]["state"], string> = {
  running: "pages follow",
  paused: "paused",
  migrating: "connecting",
  postcopy: "pages follow",
  listening: "waiting",
  incoming: "arriving",
  stalled: "STALLED",
  completed: "complete",
  failed: "FAILED"
}

const bytes = (value: number) => {
  const power = value < 1 ? 0 : Math.min(3, Math.floor(Math.log2(value) / 10))
  const scaled = value / 1024 ** power
  return `${scaled.toFixed(power > 0 && scaled < 10 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][power]}`
}

const micros = (value: number) => value < 1000 ? `${value.toFixed(0)} us` : `${(value / 1000).toFixed(1)} ms`

const pagesOf = ({ pages }: Observation) => pages.onDemand + pages.background

/** Bytes of pages a second between two observations; 0 when that cannot be told. */
const rateOf = (before: Observation | undefined, now: Observation) => {
  const millis = before === undefined ? 0 : now.at - before.at
  return millis > 0 ? Math.max(0, pagesOf(now) - pagesOf(before!)) * now.pageSize * 1000 / millis : 0
}

/** The line, no wider than the terminal. `before` is an earlier observation of the same side, for the rate. */
export const render = (before: Observation | undefined, now: Observation, terminal: Terminal): string => {
  const { remaining, state, total } = now.status
  const begun = state !== "listening" && state !== "migrating" && total > 0
  const done = begun ? Math.min(1, (total - remaining) / total) : 0
  const full = Math.floor(done * BAR)
  const [solid, hollow] = terminal.unicode ? ["█", "░"] : ["#", "-"]
  const paint = (code: number, text: string) => terminal.color ? `\x1b[${code}m${text}\x1b[0m` : text
  const color = state === "stalled" || state === "failed" ? 31 : 34
  const { faults } = now
  /** In the order in which they are given up, the last one first. */
  const parts: Array<readonly [plain: string, painted: string]> = []
  const add = (plain: string, painted = plain) => void parts.push([plain, painted])
  add(phases[state], paint(1, phases[state]))
  if (begun) add(`${(done * 100).toFixed(1).padStart(5)} %`)
  add(solid.repeat(full) + hollow.repeat(BAR - full), paint(color, solid.repeat(full)) + hollow.repeat(BAR - full))
  if (begun) add(`${bytes(remaining * now.pageSize)} left`)
  if (begun) add(`${bytes(rateOf(before, now))}/s`)
  if (begun && faults !== undefined && faults.count > 0) {
    add(`p50 ${micros(faults.p50Us ?? 0)} p99 ${micros(faults.p99Us ?? 0)}`)
    add(`${now.inFlight} in flight`)
  }
  let width = 0
  let line = ""
  for (const [plain, painted] of parts) {
    const next = width + plain.length + (width === 0 ? 0 : 2)
    if (next >= terminal.columns) break
    line += (width === 0 ? "" : "  ") + painted
    width = next
  }
  return line
}
