// What a user does: the packed package installed into an empty project, with a binary in it and without, and what
// loading it says where it cannot work.
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { compiled, hasCompiler } from "./Compiled.ts"
import { available } from "./Kernel.ts"

const root = path.dirname(createRequire(import.meta.url).resolve("userfaultfd-napi/package.json"))
const headers = path.dirname(createRequire(path.join(root, "index.js")).resolve("node-api-headers/package.json"))
const npmrc = "offline=true\naudit=false\nfund=false\nupdate-notifier=false\n"

let directory = ""
beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-install-"))
})
afterAll(() => fs.rmSync(directory, { recursive: true }))

interface Outcome {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | null
}

const run = (
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd: string; readonly env?: Record<string, string> }
): Outcome => {
  // As a user's shell has it: nothing of the npm that runs these tests.
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith("npm_"))
  const env = { ...Object.fromEntries(own), ...options.env }
  const { stdout, stderr, status } = spawnSync(command, args, { cwd: options.cwd, encoding: "utf8", env })
  return { stdout, stderr, status }
}

const npm = (args: ReadonlyArray<string>, cwd: string, env?: Record<string, string>): Outcome => {
  const outcome = run("npm", args, { cwd, env: { npm_config_cache: path.join(directory, "cache"), ...env } })
  if (outcome.status !== 0) throw new Error(`npm ${args.join(" ")}: ${outcome.stderr}`)
  return outcome
}

/** A package as a file, with more in it than the repository has when `prebuilt`. */
const pack = (name: string, prebuilt: boolean): string => {
  const copy = path.join(directory, name)
  for (const entry of fs.readdirSync(root).filter((entry) => !["build", "node_modules", "prebuilds"].includes(entry))) {
    fs.cpSync(path.join(root, entry), path.join(copy, entry), { recursive: true })
  }
  fs.mkdirSync(path.join(copy, "node_modules"))
  fs.symlinkSync(headers, path.join(copy, "node_modules", "node-api-headers"))
  if (prebuilt) assert.strictEqual(run(process.execPath, ["scripts/build.js", "--prebuild"], { cwd: copy }).status, 0)
  fs.rmSync(path.join(copy, "node_modules"), { recursive: true })
  fs.writeFileSync(path.join(copy, ".npmrc"), npmrc)
  return path.join(copy, npm(["pack", "--ignore-scripts"], copy).stdout.trim().split("\n").at(-1)!)
}

/** An empty project with the package in it; the dependency comes from a file too, so that no registry is asked. */
const install = (name: string, file: string, env?: Record<string, string>): string => {
  const project = path.join(directory, name)
  fs.mkdirSync(project)
  fs.writeFileSync(path.join(project, "package.json"), `{ "name": "${name}", "private": true }`)
  fs.writeFileSync(path.join(project, ".npmrc"), npmrc)
  const packed = npm(["pack", headers, "--ignore-scripts"], project).stdout.trim().split("\n").at(-1)!
  npm(["install", file, path.join(project, packed)], project, env)
  return project
}

const installed = (project: string) => path.join(project, "node_modules", "userfaultfd-napi")
const load = "const u = require('userfaultfd-napi'); console.log(typeof u.open, u.pageSize > 0)"

/** Every Node there is: one binary serves them all. */
const nodes = [...new Set([process.execPath, "/usr/bin/node", "/usr/local/bin/node"])].filter((file) =>
  fs.existsSync(file)
)

/** A compilation takes seconds, and many times that on a machine that has other things to do. */
const timeout = 240_000

describe.skipIf(!hasCompiler)("the packed package", { timeout }, () => {
  it("is compiled when it is installed, and runs", () => {
    const project = install("compiled", pack("without", false))
    assert.isTrue(fs.existsSync(path.join(installed(project), "build", "userfaultfd.node")))
    for (const node of nodes) {
      const { stdout, stderr } = run(node, ["-e", load], { cwd: project })
      assert.deepStrictEqual({ node, stdout, stderr }, { node, stdout: "function true\n", stderr: "" })
    }
    const names = fs.readdirSync(installed(project)).sort()
    assert.deepStrictEqual(names, [
      "LICENSE",
      "README.md",
      "build",
      "examples",
      "index.d.ts",
      "index.js",
      "lib",
      "package.json",
      "scripts",
      "src"
    ])
    if (!available) return
    const example = path.join(installed(project), "examples", "two-processes.js")
    assert.include(run(process.execPath, [example], { cwd: project }).stdout, "served 4 faults")
  })

  it("needs no compiler when a binary came with it, which serves every Node", () => {
    const file = pack("with", true)
    const nothing = { PATH: `${path.dirname(process.execPath)}:/usr/bin:/bin`, CXX: "/nonexistent/c++" }
    const project = install("prebuilt", file, nothing)
    assert.isFalse(fs.existsSync(path.join(installed(project), "build")))
    for (const node of nodes) {
      const { stdout, stderr } = run(node, ["-e", load], { cwd: project })
      assert.deepStrictEqual({ node, stdout, stderr }, { node, stdout: "function true\n", stderr: "" })
    }
    if (available) {
      const example = path.join(installed(project), "examples", "dirty-tracking.js")
      assert.include(run(process.execPath, [example], { cwd: project }).stdout, "64 of 64 pages are equal")
    }
    const compiledAnyway = install("from-source", file, { npm_config_build_from_source: "true" })
    assert.isTrue(fs.existsSync(path.join(installed(compiledAnyway), "build", "userfaultfd.node")))
  })

  it("installs where it cannot be compiled, and says so when it is loaded", () => {
    const project = install("bare", pack("bare-package", false), { CXX: "/nonexistent/c++" })
    const script = "try { require('userfaultfd-napi') } catch (error) { console.log(error.code, error.message) }"
    const { stdout } = run(process.execPath, ["-e", script], { cwd: project })
    assert.match(stdout, /^ERR_ADDON_MISSING .*npm rebuild userfaultfd-napi.*install g\+\+/)
  })
})

describe("a platform without userfaultfd", () => {
  const load = (prelude: string) =>
    run(process.execPath, [
      "-e",
      `${prelude}; try { require(${JSON.stringify(root)}) } catch (error) { console.log(error.code, error.message) }`
    ], { cwd: root })

  it("that is not Linux is named when the package is loaded", () => {
    const { stdout } = load("Object.defineProperty(process, 'platform', { value: 'darwin' })")
    assert.match(stdout, /^ERR_ADDON_MISSING .*userfaultfd is a Linux interface and this is darwin/)
  })

  it.skipIf(!hasCompiler)("that is a kernel without it loads the package, and open says what is missing", () => {
    using program = compiled("Without.cc")
    const script = `const u = require(${JSON.stringify(root)})
      const { device, syscall, userModeOnly, features } = u.probe()
      console.log([device, syscall, userModeOnly].map(({ errno }) => u.errnoName(errno)).join(), features)
      console.log(u.selfTest().every(({ ok, offered }) => ok && !offered))
      try { u.open() } catch (error) { console.log(error.message) }
      try { new u.DirtyTracker(u.Region.anonymous(u.pageSize)) } catch (error) { console.log(error.code) }
      console.log(u.Region.anonymous(u.pageSize).fillByte(0, 1))`
    const ENOSYS = 38
    const without = run(program.file, [String(ENOSYS), process.execPath, "-e", script], { cwd: root })
    assert.deepStrictEqual(without.stdout.split("\n"), [
      "ENOSYS,ENOSYS,ENOSYS 0",
      "true",
      "ENOSYS: function not implemented, userfaultfd (this kernel has no userfaultfd)",
      "ENOSYS",
      "0",
      ""
    ])
    const EPERM = 1
    const forbidden = run(program.file, [String(EPERM), process.execPath, "-e", script], { cwd: root }).stdout
    assert.match(forbidden, /^EPERM,EPERM,EPERM 0\ntrue\nEPERM: .*vm\.unprivileged_userfaultfd=1.*userModeOnly/)
  })
})
