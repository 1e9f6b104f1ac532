/** What a person sees on a terminal, and what a pipe gets: the commands under `script`, which gives them a terminal. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync } from "node:fs"
import { kernel } from "../../src/cli/HostFindings.ts"
import { entry, start } from "./Postcopy.ts"
import { canReceive, why } from "./Shells.ts"

const hasScript = existsSync("/usr/bin/script")

/** Runs a command on a terminal of so many columns; everything it showed, in order. */
const onTerminal = async (columns: number, args: string, env: Record<string, string> = {}) => {
  const { code, stdout } = await start(["-qec", `stty cols ${columns}; exec ${entry} ${args}`, "/dev/null"], {
    command: ["/usr/bin/script"],
    env: { LANG: "C.UTF-8", TERM: "xterm", NO_COLOR: "", ...env }
  }).ended
  return { code, shown: stdout }
}

/** The states of the line that is redrawn. */
const redrawn = (shown: string) => shown.split("\r\x1b[K").slice(1).map((text) => text.split("\r\n")[0]!)

// oxlint-disable-next-line no-control-regex
const bare = (text: string) => text.replaceAll(/\x1b\[\d*m/g, "")

describe.skipIf(!canReceive || !hasScript)(`on a terminal${why}`, { timeout: 120_000 }, () => {
  const demo = "demo --guest counter --memory 16 --max-bandwidth 30M"

  it("a migration is one line that is redrawn, never wider than the terminal, and gone at the end", async () => {
    for (const columns of [50, 110]) {
      const { code, shown } = await onTerminal(columns, demo)
      assert.strictEqual(code, 0, shown)
      const lines = redrawn(shown)
      assert.isNotEmpty(lines.filter((line) => /^pages follow {2,3}[\d. ]+ % {2}[█░]/.test(bare(line))), shown)
      for (const line of lines.slice(0, -1)) assert.isBelow(bare(line).length, columns)
      assert.include(shown, "\r\x1b[KThe counter guest moved")
      assert.include(shown, "\x1b[34m")
    }
  })

  it("NO_COLOR takes the colours away, and nothing else", async () => {
    const { shown } = await onTerminal(100, demo, { NO_COLOR: "1" })
    assert.notInclude(shown, "\x1b[3")
    assert.isNotEmpty(redrawn(shown))
  })

  it("help has colours there, and obeys NO_COLOR as everything does: empty is not set", async () => {
    assert.include((await onTerminal(100, "--help")).shown, "\x1b[")
    for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }]) {
      assert.notInclude((await onTerminal(100, "--help", env)).shown, "\x1b[")
    }
  })

  it("doctor paints its marks there", async () => {
    assert.include((await onTerminal(100, "doctor")).shown, "\x1b[32m[ok]  \x1b[0m")
    assert.include((await start(["doctor"]).ended).stdout, "[ok]   kernel")
  })
})

describe("the kernel", () => {
  it.each([
    ["6.18.44-generic", "ok"],
    ["5.11.0", "ok"],
    ["5.10.200", "note"],
    ["4.14.1", "note"],
    ["4.9.0", "missing"],
    ["3.10.0-1160.el7", "missing"]
  ])("%s is %s, with the remedy where one is needed", (version, state) => {
    const finding = kernel(version)
    assert.strictEqual(finding.state, state)
    assert.strictEqual(finding.fix === undefined, state === "ok")
  })
})
