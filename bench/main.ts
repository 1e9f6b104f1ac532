/**
 * `npm run bench -- [CASE…] [--pairs N] [--scale N] [--list]`: runs the cases, ours and the other side in turn, and writes
 * a JSON line for every run and every figure to stdout; the table goes to stderr, at the end of each case.
 *
 * `--scale` divides the sizes; what it gives is a trial, not a measurement. A name that is a beginning means all cases
 * that begin so.
 */
import { parseArgs } from "node:util"
import { all, type Case } from "./Cases.ts"
import { best, quantile, ratio } from "./Statistics.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    pairs: { type: "string", default: "9" },
    scale: { type: "string", default: "1" },
    list: { type: "boolean", default: false }
  }
})

const emit = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)
const say = (line: string) => process.stderr.write(`${line}\n`)

const positive = (text: string, name: string) => {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1) return value
  say(`--${name} takes a whole number of at least 1, not "${text}"`)
  return process.exit(1)
}

const pairs = positive(values.pairs, "pairs")
const cases = all(positive(values.scale, "scale"))
const unknown = positionals.find((name) => !cases.some((each) => each.name.startsWith(name)))
if (unknown !== undefined) {
  say(`there is no case "${unknown}"; --list names them`)
  process.exit(1)
}
const exact = (name: string) => cases.some((each) => each.name === name)
const chosen = cases.filter(({ name }) =>
  positionals.length === 0 || positionals.some((given) => exact(given) ? name === given : name.startsWith(given))
)

const measure = async ({ about, against, figures, missing, name, other, ours }: Case) => {
  if (missing !== undefined) {
    emit({ case: name, skipped: missing })
    say(`${name}: not run: ${missing}`)
    return
  }
  say(`\n${name}: ${about}; ${pairs} pairs against ${against}`)
  const runs: Array<readonly [Awaited<ReturnType<typeof ours>>, Awaited<ReturnType<typeof ours>>]> = []
  for (let pair = 0; pair < pairs; pair++) {
    // Who goes first changes from pair to pair: what the first leaves behind hits both alike.
    const first = pair % 2 === 0 ? await ours() : await other()
    const second = pair % 2 === 0 ? await other() : await ours()
    const both = pair % 2 === 0 ? [first, second] as const : [second, first] as const
    runs.push(both)
    emit({ case: name, pair, ours: both[0], other: both[1] })
  }
  say(["figure", "ours", "other", "best/best", "median", "quartiles", "aim"].map((head) => head.padEnd(18)).join(""))
  for (const { aim, better, name: figure, unit } of figures) {
    const here = runs.map(([each]) => each[figure] ?? Number.NaN)
    const there = runs.map(([, each]) => each[figure] ?? Number.NaN)
    const compared = ratio(here, there, better)
    emit({ case: name, figure, unit, better, ours: quantile(here, 0.5), other: quantile(there, 0.5), ...compared, aim })
    const number = (value: number) => Number.isNaN(value) ? "-" : value.toPrecision(3)
    const [low, high] = compared.quartiles
    say(
      [
        figure,
        `${number(quantile(here, 0.5))} (${number(best(here, better))})`,
        `${number(quantile(there, 0.5))} (${number(best(there, better))})`,
        number(compared.best),
        number(compared.median),
        `${number(low)}..${number(high)}`,
        aim === undefined ? "" : `${better === "lower" ? "<=" : ">="} ${aim}`
      ].map((cell) => cell.padEnd(18)).join("")
    )
  }
}

if (values.list) { for (const { about, name } of cases) process.stdout.write(`${name.padEnd(22)}${about}\n`) }
else {
  emit({ machine: { cpus: (await import("node:os")).cpus().map(({ model }) => model), node: process.version }, pairs })
  for (const each of chosen) await measure(each)
}
