import { assert, describe, it } from "@effect/vitest"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { directory, start } from "./Postcopy.ts"
import { canReceive, why } from "./Shells.ts"

describe.skipIf(!canReceive)(`demo${why}`, { timeout: 180_000 }, () => {
  const demo = (args: ReadonlyArray<string>, env: Record<string, string> = {}) => {
    const temporary = directory()
    const running = start(["demo", "--json", ...args], { env: { TMPDIR: temporary, ...env } })
    return { ...running, left: () => readdirSync(temporary) }
  }

  it.each([
    ["sqlite", ["--memory", "32"]],
    ["sqlite", ["--memory", "32", "--nobg"]],
    ["counter", ["--memory", "16"]],
    ["counter", ["--memory", "16", "--nobg"]],
    ["counter", ["--memory", "4", "--max-bandwidth", "20M"]]
  ])("moves %s %j whole", async (guest, args) => {
    const { ended, left } = demo(["--guest", guest, ...args])
    const { code, objects, stderr } = await ended
    assert.strictEqual(code, 0, stderr)
    const [outcome] = objects
    assert.deepInclude(outcome, { event: "report", verified: true })
    assert.deepInclude(outcome.source, { role: "source", state: "completed" })
    assert.deepInclude(outcome.destination, { role: "destination", state: "completed" })
    assert.isAbove(outcome.downtimeMs, 0)
    assert.isAbove(outcome.missingAtFirstAnswer, 0)
    if (args.includes("--nobg")) assert.strictEqual(outcome.destination.pages.background, 0)
    assert.deepStrictEqual(left(), [])
  })

  it("says so when a byte was changed on the way: exit 70", async () => {
    const { ended, left } = demo(["--guest", "counter", "--memory", "16"], { POSTCOPY_TEST_FLIP_BYTE: "5000000" })
    const { code, error, objects } = await ended
    assert.deepStrictEqual([code, objects[0].verified, error.tag], [70, false, "NotVerified"])
    assert.deepStrictEqual(left(), [])
  })

  it("is quiet in a pipe, apart from what came out of it", async () => {
    const { code, stderr, stdout } = await start(["demo", "--guest", "counter", "--memory", "4"]).ended
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.include(stdout, "verified: the guest is whole")
  })

  it("interrupted takes its processes along", async () => {
    const { child, ended, left } = demo(["--guest", "counter", "--memory", "64", "--nobg"])
    let children: ReadonlyArray<string> = []
    while (children.length < 2) {
      children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").split(" ").filter((pid) =>
        pid !== ""
      )
      await new Promise(setImmediate)
    }
    child.kill("SIGINT")
    assert.strictEqual((await ended).code, 130)
    assert.deepStrictEqual(children.filter((pid) => existsSync(`/proc/${pid}`)), [])
    assert.deepStrictEqual(left(), [])
  })
})
