/** Why help appears at once: a start loads what it needs and nothing else, and finds it by the short way. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { cpSync, mkdirSync, readdirSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Loads from "./Loads.ts"
import { directory, start } from "./Postcopy.ts"

const loadsOf = async (...args: ReadonlyArray<string>) => {
  const { code, stderr, stdout } = await start(args, { env: Loads.env }).ended
  assert.strictEqual(code, 0, stderr)
  assert.include(stdout, "USAGE")
  return Loads.parse(stderr)
}

const files = ({ modules }: Loads.Loads, folder: string) =>
  modules.flatMap((url) => url.includes(folder) ? [url.slice(url.lastIndexOf(folder) + folder.length)] : [])

const checkout = fileURLToPath(new URL("../..", import.meta.url))

/** A checkout as `npm ci` leaves it before it runs the scripts: what others installed is linked, the cache is its own. */
const fresh = () => {
  const root = directory()
  for (const part of ["bin", "src", "package.json"]) cpSync(join(checkout, part), join(root, part), { recursive: true })
  mkdirSync(join(root, "node_modules"))
  for (const name of readdirSync(join(checkout, "node_modules"))) {
    if (name !== ".cache") symlinkSync(join(checkout, "node_modules", name), join(root, "node_modules", name))
  }
  return root
}

/** A restore of what is no image: it has loaded everything by then. */
const failing = ["qemu", "restore", "/dev/null", "unix:/"]

/** What Node says of its compile cache: how many modules came from it, and what had to be compiled or stripped anew. */
const cacheOf = async (root: string, args: ReadonlyArray<string>) => {
  const { code, stderr } = await start(args, {
    command: [join(root, "bin", "postcopy.js")],
    env: { NODE_DEBUG_NATIVE: "COMPILE_CACHE" }
  }).ended
  assert.strictEqual(code, args === failing ? 1 : 0)
  const lines = stderr.split("\n").filter((line) => line.startsWith("[compile cache]"))
  return {
    taken: lines.filter((line) => line.includes(" was accepted")).length,
    made: lines.filter((line) => /saving transpilation cache|writing cache for/.test(line))
  }
}

/** The modules of commands are named like them, in lower case; what they share is not. */
const commandsOf = (loads: Loads.Loads) => files(loads, "/src/cli/").filter((name) => /^[a-z]/.test(name))

describe("a start", () => {
  it("for help loads no command", async () => {
    assert.deepStrictEqual(commandsOf(await loadsOf("--help")), ["main.ts"])
  })

  it.each(["demo", "run", "receive", "migrate", "status", "set", "call", "quit", "inspect", "doctor"])(
    "for help of %s loads that one, and nothing it would need to work",
    async (command) => {
      const loads = await loadsOf(command, "--help")
      assert.deepStrictEqual(commandsOf(loads), ["main.ts", `${command}.ts`])
      assert.deepStrictEqual(loads.modules.filter((url) => Loads.heavy.test(url)), [])
    }
  )

  it("loads nothing heavy for help", async () => {
    const { modules } = await loadsOf("--help")
    assert.deepStrictEqual(modules.filter((url) => Loads.heavy.test(url)), [])
    // 223 when this was written, half of a millisecond each; far above it something came along that nobody asked for.
    assert.isBelow(modules.length, 240)
  })

  it("finds the modules of Effect without looking them up", async () => {
    const { lookUps, modules } = await loadsOf("--help")
    assert.isAbove(modules.filter((url) => url.includes("/effect/dist/")).length, 100)
    assert.deepStrictEqual(lookUps.filter((line) => line.includes("/effect/dist/")), [])
  })

  it("for the first help or restore of a checkout finds everything compiled by the installation", async () => {
    const root = fresh()
    const before = await cacheOf(root, ["--version"])
    assert.isAbove(before.made.length, 100)
    const installed = fresh()
    execFileSync("npm", ["run", "postinstall"], { cwd: installed, stdio: "ignore" })
    for (const args of [["--help"], ["migrate", "--help"], failing]) {
      const { made, taken } = await cacheOf(installed, args)
      assert.isAbove(taken, args === failing ? 100 : 200)
      assert.deepStrictEqual(made, [])
    }
  })

  it("knows what is heavy when it is loaded", async () => {
    const { stderr } = await start(["doctor", "--json"], { env: Loads.env }).ended
    assert.isAbove(Loads.parse(stderr).modules.filter((url) => Loads.heavy.test(url)).length, 0)
  })

  it("completes commands that it did not load for anything else", async () => {
    const { code, stdout } = await start(["--completions", "fish"]).ended
    assert.strictEqual(code, 0)
    assert.include(stdout, "postcopy-flags")
  })
})
