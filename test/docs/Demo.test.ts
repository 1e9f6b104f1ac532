/** What the README shows of `npm start` is what `npm start` says: every line of it but the figures, in order. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { start } from "../cli/Postcopy.ts"
import { canReceive, why } from "../cli/Shells.ts"

/** Figures differ from run to run, and so does their width; the hash is the database's own and does not. */
const shape = (text: string) =>
  text.trim().split("\n").map((line) => line.replace(/(?<![0-9a-f])\d+(\.\d+)?(?![0-9a-f])/g, "N"))

describe.skipIf(!canReceive)(`the README's picture of npm start${why}`, { timeout: 180_000 }, () => {
  it("is what npm start prints", async () => {
    const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8")
    const shown = /```text\n(The sqlite guest moved[^`]*)```/.exec(readme)?.[1]
    assert.isDefined(shown, "the README shows no output of npm start")
    const { code, stdout } = await start(["demo"]).ended
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(shape(shown!), shape(stdout))
  })
})
