/**
 * The package as somebody gets it: packed from a copy of this checkout, installed into an empty project, used there by
 * name. Packing swaps package.json for a moment, so it is never done in the checkout that other tests run from.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"
import * as Loads from "../cli/Loads.ts"
import { canReceive, why } from "../cli/Shells.ts"

const checkout = fileURLToPath(new URL("../..", import.meta.url))

const copied = [
  "package.json",
  "README.md",
  "LICENSE",
  "CHANGELOG.md",
  "tsconfig.json",
  "tsconfig.build.json",
  "bin",
  "src",
  "scripts"
]

/** Hard links where they can be had: there are a hundred megabytes of Node among the modules. */
const copyModules = (to: string) => {
  const from = join(checkout, "node_modules")
  if (spawnSync("cp", ["-al", from, to]).status !== 0) {
    rmSync(to, { recursive: true, force: true })
    execFileSync("cp", ["-a", from, to])
  }
}

const quietly = (command: string, args: ReadonlyArray<string>, cwd: string) => {
  const { status, stderr, stdout } = spawnSync(command, args, { cwd, encoding: "utf8" })
  assert.strictEqual(status, 0, `${command} ${args.join(" ")}: ${stdout}${stderr}`)
  return stdout
}

describe(`the package, installed into an empty project${why}`, { timeout: 300_000 }, () => {
  let root = ""
  let project = ""
  let packing = ""
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "postcopy-package-"))
    packing = join(root, "checkout")
    project = join(root, "project")
    mkdirSync(packing)
    mkdirSync(project)
    for (const name of copied) cpSync(join(checkout, name), join(packing, name), { recursive: true })
    cpSync(join(checkout, "native"), join(packing, "native"), {
      recursive: true,
      filter: (path) => !/\/(build|node_modules|test)$/.test(path)
    })
    copyModules(join(packing, "node_modules"))
    const before = readFileSync(join(packing, "package.json"), "utf8")
    quietly("npm", ["pack", "--pack-destination", root], packing)
    assert.strictEqual(readFileSync(join(packing, "package.json"), "utf8"), before, "npm pack changed package.json")
    const tarball = readdirSync(root).find((name) => name.endsWith(".tgz"))
    writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }))
    quietly("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", join(root, tarball!)], project)
  }, 240_000)
  afterAll(() => rmSync(root, { recursive: true, force: true }))

  const installed = (path: string) => join(project, "node_modules", "postcopy", path)

  it.skipIf(!canReceive)("runs npx postcopy demo", () => {
    const answer = quietly("npx", ["postcopy", "demo", "--json"], project)
    assert.deepInclude(JSON.parse(answer), { event: "report", verified: true })
    assert.include(quietly("npx", ["postcopy", "demo"], project), "verified: the guest is whole")
  })

  it("writes reports: the page came along", () => {
    if (!canReceive) return
    quietly("npx", ["postcopy", "demo", "--guest", "counter", "--memory", "4", "--report", "report.html"], project)
    assert.include(readFileSync(join(project, "report.html"), "utf8"), "Memory of the")
  })

  it("shows help without what help does not need, compiled for the next time", () => {
    const entry = installed("bin/postcopy.js")
    const { status, stderr, stdout } = spawnSync(entry, ["--help"], {
      encoding: "utf8",
      env: { ...process.env, ...Loads.env }
    })
    assert.deepStrictEqual([status, stdout.includes("SUBCOMMANDS")], [0, true])
    const { lookUps, modules } = Loads.parse(stderr)
    const own = modules.filter((url) => url.includes("/postcopy/dist/"))
    assert.isTrue(own.some((url) => url.endsWith("/dist/cli/main.js")))
    assert.deepStrictEqual(own.filter((url) => /\/cli\/(?!main)[a-z]/.test(url)), [])
    assert.deepStrictEqual(modules.filter((url) => Loads.heavy.test(url)), [])
    assert.deepStrictEqual(lookUps.filter((line) => line.includes("/effect/dist/")), [])
    assert.isTrue(existsSync(installed("node_modules/.cache/postcopy")))
  })

  it("gives a program its types, by name, under strict settings", () => {
    writeFileSync(
      join(project, "program.ts"),
      `import { Effect } from "effect"
       import { Guest, type GuestHandle, migrate, type MigrationError, receive, type Report } from "postcopy"
       import { defaultSettings, Settings } from "postcopy/services"
       import { layer } from "postcopy/testing"

       export const guest = Guest.memory({
         blocks: [{ idstr: "pc.ram", length: 2 ** 20 }],
         start: (ctx) => { ctx.state = { steps: 0 } },
         step: (ctx) => { ctx.state.steps++; ctx.memory["pc.ram"] satisfies Uint8Array },
         call: (ctx) => ctx.state.steps
       })
       export const sending = (handle: GuestHandle): Effect.Effect<Report, MigrationError> =>
         migrate({ guest: handle, to: "tcp:10.0.0.2:4444", maxBandwidth: 2 ** 30 })
       export const taking = Effect.scoped(Effect.flatMap(
         receive({ guest: new URL("./program.ts", import.meta.url), from: "tcp:0.0.0.0:0" }),
         ({ report }) => report
       ))
       export const tested: Effect.Effect<Report, unknown> = Effect.scoped(Effect.flatMap(
         Guest.run("counter"),
         (handle) => sending(handle)
       )).pipe(
         Effect.provide(layer({ blocks: [{ idstr: "pc.ram", length: 4096 }], latencyMillis: 1 })),
         Effect.provideService(Settings, { ...defaultSettings, drainMillis: 1_000 })
       )
       // @ts-expect-error a rate is a number
       export const wrong = (handle: GuestHandle) => migrate({ guest: handle, to: "tcp:h:1", maxBandwidth: "1M" })
       // @ts-expect-error what is not exported is not for programs
       import "postcopy/dist/actors/SourceSender.js"
      `
    )
    const config = {
      module: "NodeNext",
      target: "ES2024",
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      types: []
    }
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: config, files: ["program.ts"] }))
    quietly(process.execPath, [join(checkout, "node_modules/typescript/bin/tsc"), "-p", project], project)
  })

  it("leads an editor from every declaration to its source", () => {
    const maps = readdirSync(installed("dist"), { recursive: true, encoding: "utf8" }).filter((name) =>
      name.endsWith(".d.ts.map")
    )
    assert.isAbove(maps.length, 50)
    for (const name of maps) {
      const map = join(installed("dist"), name)
      for (const source of JSON.parse(readFileSync(map, "utf8")).sources) {
        assert.isTrue(existsSync(resolve(dirname(map), source)), `${name} leads to ${source}`)
      }
    }
  })

  it("runs a guest that imports it by name", () => {
    writeFileSync(
      join(project, "guest.ts"),
      `import { Guest } from "postcopy"
       export default Guest.memory({
         blocks: [{ idstr: "pc.ram", length: 2 ** 20 }],
         start: (ctx) => { ctx.memory["pc.ram"].fill(7) },
         call: (ctx) => ctx.memory["pc.ram"][4096]
       })`
    )
    const script = `
      npx postcopy run ./guest.ts --control ./control > running & guest=$!
      trap 'kill $guest 2> /dev/null || true' EXIT
      while ! grep -q running running; do kill -0 $guest; done
      npx postcopy call --control ./control null
      npx postcopy quit --control ./control
      wait $guest`
    assert.strictEqual(quietly("bash", ["-euc", script], project), "7\nended\n")
  })

  it("carries no tests, no secrets of the checkout, and nothing that is not used", () => {
    const names = readdirSync(installed("."), { recursive: true, encoding: "utf8" })
    assert.deepStrictEqual(
      names.filter((name) =>
        !name.startsWith("node_modules") && /(^|\/)(test|\.ci|\.env|package\.json\.checkout)(\/|$)/.test(name)
      ),
      []
    )
    const { devDependencies, scripts, workspaces } = JSON.parse(readFileSync(installed("package.json"), "utf8"))
    assert.deepStrictEqual([devDependencies, scripts, workspaces], [undefined, {}, undefined])
  })
})
