import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { directory, entry, oldNode, start } from "./Postcopy.ts"

const noAddon = fileURLToPath(new URL("./NoAddon.cjs", import.meta.url))

/** The only command that lives until it is told to end and needs nothing: it reads what nobody writes. */
const waits = ["inspect", "request"]

const commandLine = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")

describe("bin/postcopy.js", () => {
  it("runs by a link to it, as package managers make them", async () => {
    const link = join(directory(), "postcopy")
    symlinkSync(entry, link)
    const { code, stdout } = await start(["--version"], { command: [link], cwd: "/" }).ended
    assert.deepStrictEqual([code, stdout.startsWith("postcopy ")], [0, true])
  })

  it("becomes the Node that runs it: same pid", async () => {
    const { child, ended } = start([...waits, "/dev/zero"])
    while (!commandLine(child.pid!)[0]!.endsWith("/node")) await new Promise(setImmediate)
    assert.include(commandLine(child.pid!), "inspect")
    child.kill("SIGINT")
    assert.notStrictEqual((await ended).code, 0)
  })

  it("keeps arguments as they are", async () => {
    const { error } = await start(["run", `it's $HOME "a b"\\`, "--json"]).ended
    assert.include(error.message, `it's $HOME "a b"\\`)
  })

  it.skipIf(oldNode === undefined)("started with an old Node gives way to the new one: same pid", async () => {
    const { child, ended } = start([...waits, "/dev/zero"], { command: [oldNode!, entry] })
    while (!commandLine(child.pid!)[0]!.includes("node-linux-")) await new Promise(setImmediate)
    child.kill("SIGINT")
    await ended
  })

  it.skipIf(oldNode === undefined)("passes signals and exit codes on where an old Node has no addon", async () => {
    const args = ["--require", noAddon, entry]
    assert.strictEqual(
      (await start(["migrate", "exec:x", "--control", "x"], { command: [oldNode!, ...args] }).ended).code,
      69
    )
    const { code, stdout } = await start(["--version"], { command: [oldNode!, ...args] }).ended
    assert.deepStrictEqual([code, stdout.startsWith("postcopy ")], [0, true])
  })

  it("says nothing on stderr that nobody asked for", async () => {
    assert.strictEqual((await start(["doctor", "--json"]).ended).stderr, "")
  })

  it("has its Node beside it", () => {
    const node = new URL(`../../node_modules/node-linux-${process.arch}/bin/node`, import.meta.url)
    assert.isTrue(existsSync(node))
  })
})
