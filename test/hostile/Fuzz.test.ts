/** The fuzz campaign, shortened; `npm run fuzz` is the whole of it. */
import { assert, describe, it } from "vitest"
import * as Campaign from "./Campaign.ts"

/** Fixed, so that a failure is this change's and not chance's; the recorded campaigns have other seeds. */
const SEED = 20_111_229
const INPUTS = 12_000

// Half a minute on two idle cores.
describe("hostile bytes", { timeout: 300_000 }, () => {
  it("crash, hang or bloat no decoder and neither live end, which do what the reference says", async () => {
    const { outcomes } = await Campaign.run({ inputs: INPUTS, seed: SEED })
    const seen = [...outcomes.keys()]
    // Chance reached both sides of each: what was taken, what was refused, and what was cut off.
    for (const format of ["request", "ram", "section", "pipe", "savevm", "bitmapList"]) {
      for (const verdict of ["end", "malformed", "truncated"]) {
        assert.isTrue(seen.some((outcome) => outcome.startsWith(`${format}: ${verdict}`)), `${format}: ${verdict}`)
      }
    }
    for (const outcome of ["serve: complete", "serve: incomplete", "send: confirmed"]) assert.include(seen, outcome)
    for (const half of ["answers", "fetches"]) {
      for (const some of ["some", "none"]) {
        for (const left of ["bytes left", "nothing left"]) assert.include(seen, `${half}: ${some}, ${left}`)
      }
    }
    for (
      const failure of ["receive: MalformedInput", "receive: LinkFailed", "send: MalformedInput", "send: LinkFailed"]
    ) {
      assert.isTrue(seen.some((outcome) => outcome.startsWith(failure)), failure)
    }
  })

  it("are made again from the seed alone", async () => {
    const once = await Campaign.run({ inputs: 200, seed: SEED })
    const again = await Campaign.run({ inputs: 200, seed: SEED })
    assert.deepEqual([...again.outcomes], [...once.outcomes])
    const one = await Campaign.run({ inputs: 1, seed: SEED + 7, target: "savevm" })
    assert.strictEqual(one.outcomes.size, 1)
  })
})
