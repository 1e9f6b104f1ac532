/** The simulation as a test of its own: a short range, and that a seed replays. Long ranges are `npm run simulate`. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { mutants } from "./Mutants.ts"
import { apply } from "./Transforms.ts"

const entry = fileURLToPath(new URL("./simulate.ts", import.meta.url))

const simulate = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", entry, ...args], { encoding: "utf8" })

describe("the simulation", () => {
  it("finds nothing in a short range, and comes to the same digest whatever the number of threads", () => {
    const [one, two] = ["1", "2"].map((threads) => simulate("--seeds", "200", "--from", "7", "--threads", threads))
    assert.strictEqual(one!.status, 0, one!.stdout + one!.stderr)
    const digest = (text: string) => /digest (\w+)/.exec(text)?.[1]
    assert.isDefined(digest(one!.stdout))
    assert.strictEqual(digest(one!.stdout), digest(two!.stdout))
  })

  it("sees a defect that is built back in", () => {
    const { status, stdout } = simulate("--mutant", "B02", "--seeds", "100")
    assert.strictEqual(status, 0, stdout)
    assert.match(stdout, /^B02: seen by seed \d+/)
  })

  it("has only defects that the sources can still be given", () => {
    const source = (file: string) => readFileSync(new URL(`../../src/${file}`, import.meta.url), "utf8")
    for (const { changes } of Object.values(mutants)) {
      const files = new Set(changes.map(({ file }) => file))
      for (const file of files) assert.notStrictEqual(apply(file, source(file), changes), source(file))
    }
  })

  it("refuses a change whose text is gone", () => {
    const change = { file: "a.ts", from: "const a = 1", to: "const a = 2" }
    assert.strictEqual(apply("a.ts", "const a = 1\n", [change]), "const a = 2\n")
    assert.throws(() => apply("a.ts", "const b = 1\n", [change]), /0 times/)
  })
})
