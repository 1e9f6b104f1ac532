// The package's own scripts, in a copy of the package: what an installation does with and without a compiler.
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { hasCompiler } from "./Compiled.ts"
import { available } from "./Kernel.ts"

const root = path.dirname(createRequire(import.meta.url).resolve("userfaultfd-napi/package.json"))
const headers = path.dirname(createRequire(path.join(root, "index.js")).resolve("node-api-headers/package.json"))

let copy = ""
beforeAll(() => {
  copy = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-build-"))
  for (const name of ["index.js", "lib", "package.json", "scripts", "src"]) {
    fs.cpSync(path.join(root, name), path.join(copy, name), { recursive: true })
  }
  fs.mkdirSync(path.join(copy, "node_modules"))
  fs.symlinkSync(headers, path.join(copy, "node_modules", "node-api-headers"))
})
afterAll(() => fs.rmSync(copy, { recursive: true }))

const output = () => path.join(copy, "build", "userfaultfd.node")
const run = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  spawnSync(process.execPath, args, { cwd: copy, encoding: "utf8", env: { PATH: process.env["PATH"], ...env } })
const build = (env?: Record<string, string>) => run(["scripts/build.js"], env)
const load = () =>
  run(["-p", "try { require('./index.js').pageSize } catch (error) { `${error.code}: ${error.message}` }"])

describe("the build", () => {
  it("without a compiler warns and succeeds, and loading says what is missing", () => {
    const { status, stderr } = build({ CXX: "/nonexistent/c++" })
    assert.strictEqual(status, 0)
    assert.include(stderr, "no C++ compiler")
    assert.isFalse(fs.existsSync(output()))
    const { stdout } = load()
    assert.match(stdout, /^ERR_ADDON_MISSING: .*build\/userfaultfd\.node: .*npm rebuild/)
  })

  it("fails with the compiler, and leaves no half of a file", () => {
    const { status, stderr } = build({ CXX: "false" })
    assert.strictEqual(status, 1)
    assert.include(stderr, "false failed")
    assert.isFalse(fs.existsSync(output()))
  })

  it("makes a binary that loads, once", () => {
    if (!hasCompiler) return
    const first = build()
    assert.strictEqual(first.stderr, "")
    assert.strictEqual(first.status, 0)
    assert.match(load().stdout, /^\d+\n$/)
    const { ino } = fs.statSync(output())
    assert.strictEqual(build().status, 0)
    assert.strictEqual(fs.statSync(output()).ino, ino)
    assert.deepStrictEqual(fs.readdirSync(path.join(copy, "build")).sort(), ["command.txt", "userfaultfd.node"])
  }, 240_000)

  it("with a wrong number makes a binary that finds it, and whose first open refuses to go on", () => {
    if (!available || !hasCompiler) return
    for (
      const [file, right, wrong] of [
        ["UffdAbi.h", "kZeropage = _IOWR(0xaa, 0x04, Fill)", "kZeropage = _IOWR(0xaa, 0x05, Fill)"],
        ["UffdAbi.h", "kMove = _IOWR(0xaa, 0x05, Move)", "kMove = _IOWR(0xaa, 0x15, Move)"],
        ["PagemapAbi.h", "kPageWritten = 1 << 1", "kPageWritten = 1 << 3"]
      ] as const
    ) {
      const name = path.join(copy, "src", file)
      const source = fs.readFileSync(name, "utf8")
      assert.include(source, right)
      const text = source.replace(right, wrong).split("\n").filter((line) => !line.includes("static_assert(k"))
      fs.writeFileSync(name, text.join("\n"))
    }
    assert.strictEqual(build().status, 0)
    const script = `const u = require("./index.js")
      console.log(u.selfTest().filter(({ ok }) => !ok).map(({ name }) => name).join())
      try { u.open({ userModeOnly: true }) } catch (error) { console.log(error.code, error.message) }`
    const [failed, refused] = run(["-e", script]).stdout.split("\n")
    assert.strictEqual(failed, "ZEROPAGE,MOVE,WRITEPROTECT and PAGEMAP_SCAN")
    assert.match(refused!, /^ENOTSUP .*this kernel differs from what the package knows: ZEROPAGE/)
  }, 240_000)
})
