import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { addon, socketpair } from "./Descriptors.ts"
import { directory, entry, start } from "./Postcopy.ts"

/** A Node on PATH that is too old for the command line; most hosts have none. */
const oldNode = (() => {
  try {
    const path = execFileSync("/bin/sh", ["-c", "PATH=/usr/local/bin:/usr/bin:/bin command -v node"], {
      encoding: "utf8"
    }).trim()
    const major = Number(execFileSync(path, ["-p", "process.versions.node.split('.')[0]"], { encoding: "utf8" }))
    return major < 22 ? path : undefined
  } catch {
    return undefined
  }
})()

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

  it.skipIf(oldNode === undefined)(
    "started with an old Node gives way to the new one: same pid, same descriptors",
    async () => {
      // That the descriptor got there is seen by how far `migrate` comes: it looks at it before it gives it away.
      const [mine, theirs] = socketpair()
      const { child, ended } = start(["migrate", "fd:3", "--control", "x", "--json"], {
        command: [oldNode!, entry],
        descriptors: [theirs.fd]
      })
      const { error } = await ended
      assert.strictEqual(error.tag, "NoControl")
      assert.isTrue(child.pid !== undefined)
      mine.close()
      theirs.close()
    }
  )

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
    assert.strictEqual((await start(["doctor", "--json"]).ended).stderr, addon === undefined ? undefined : "")
  })

  it("has its Node beside it", () => {
    const node = new URL(`../../node_modules/node-linux-${process.arch}/bin/node`, import.meta.url)
    assert.isTrue(existsSync(node))
  })
})
