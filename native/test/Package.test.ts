import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { available, has } from "./Kernel.ts"

const require = createRequire(import.meta.url)
const root = path.dirname(require.resolve("userfaultfd-napi/package.json"))
const run = (...args: ReadonlyArray<string>) => {
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" })
  return { stdout, stderr, status }
}

describe("the package", () => {
  it("exports by name what the addon has and the types declare", () => {
    const addon = require(path.join(root, "build", "userfaultfd.node")) as Record<string, unknown>
    const above = ["DirtyTracker", "alignDown", "alignUp", "decodeEvents", "pagesCovering", "pagesWithin", "runsOf"]
    const names = [...Object.keys(addon), ...above].sort()
    assert.deepStrictEqual(Object.keys(require("userfaultfd-napi")).sort(), names)
    assert.deepStrictEqual(Object.keys(Uffd).filter((name) => !/^(default|module\.exports)$/.test(name)).sort(), names)
    const types = fs.readFileSync(path.join(root, "index.d.ts"), "utf8")
    const declared = [...types.matchAll(/^export (?:const|function|class) (\w+)/gm)].map((match) => match[1]!)
    assert.deepStrictEqual([...new Set(declared)].sort(), names)
  })

  it("declares every constant that it has", () => {
    const types = fs.readFileSync(path.join(root, "index.d.ts"), "utf8")
    const block = types.slice(types.indexOf("export const constants"), types.indexOf("export function errnoName"))
    const declared = [...block.matchAll(/readonly (\w+): (0x[\da-f]+|\d+)$/gm)].map(([, name, value]) =>
      [name!, Number(value)] as const
    )
    assert.deepStrictEqual(Object.fromEntries(declared), { ...Uffd.constants })
  })

  it("documents every function and class", () => {
    const types = fs.readFileSync(path.join(root, "index.d.ts"), "utf8")
    const bare = types.split("\n").flatMap((line, i, lines) => {
      const name = /^export (?:function|class|const) (\w+)/.exec(line)?.[1]
      return name !== undefined && !/\*\/$|^export function/.test(lines[i - 1]!) ? [name] : []
    })
    // Its twin has the words for both.
    assert.deepStrictEqual(bare, [])
  })

  const [first, second, ...others] = Array.from(
    fs.readFileSync(path.join(root, "README.md"), "utf8").matchAll(/```\w*\n([\s\S]*?)```/g),
    ([, code]) => code!
  )

  it.skipIf(!available)("has a first example that runs", () => {
    assert.deepStrictEqual(run("-e", first!), { stdout: "page 7 is full of 7\n", stderr: "", status: 0 })
  })

  it.skipIf(!available)(
    "has a second one that installs what it is given: a chunk of a stream, described by pages",
    () => {
      const before = `
      const { constants, errnoName, EVENT_WORDS, installPages, open, pageSize, readEvents, Region, register, VECTOR_WORDS } =
        require("userfaultfd-napi")
      const { descriptor: uffd } = open({ userModeOnly: true })
      const region = Region.anonymous(3 * pageSize)
      register(uffd, region.address, region.length, constants.MODE_MISSING)
      const ring = new Float64Array(64 * EVENT_WORDS)
      // Two pages, each behind a header of eight bytes.
      const chunk = new Uint8Array(2 * (8 + pageSize)).fill(1)
      chunk.fill(21, 8, 8 + pageSize)
      chunk.fill(22, 16 + pageSize)
      const pages = [
        { address: region.address, offset: 8, zero: false },
        { address: region.address + pageSize, offset: 16 + pageSize, zero: false },
        { address: region.address + 2 * pageSize, offset: 0, zero: true }
      ]`
      const after = `console.log([0, 1, 2].map((page) => region.fillByte(page * pageSize, pageSize)).join(" "))`
      assert.deepStrictEqual(run("-e", `${before}\n${second}\n${after}`), {
        stdout: "21 22 0\n",
        stderr: "",
        status: 0
      })
      assert.deepStrictEqual(others, [], "an example that nobody runs")
    }
  )

  it.skipIf(!available)("has an example of a file whose pages are read when they are touched", () => {
    const { stdout, stderr, status } = run("examples/lazy-file.js", "src/UffdVector.cc")
    assert.deepStrictEqual({ stderr, status }, { stderr: "", status: 0 })
    const lines = fs.readFileSync(path.join(root, "src/UffdVector.cc"), "utf8").split("\n").length - 1
    const pages = Math.ceil(fs.statSync(path.join(root, "src/UffdVector.cc")).size / Uffd.pageSize)
    assert.strictEqual(
      stdout,
      `${lines} lines, ${pages} of ${pages} pages read\nits last byte is 10, 1 of ${pages} pages read\n`
    )
  })

  it.skipIf(!has(Uffd.constants.FEATURE_WP_ASYNC))("has an example of incremental snapshots", () => {
    assert.deepStrictEqual(run("examples/dirty-tracking.js"), {
      stdout: [
        "snapshot 0: 64 pages",
        "snapshot 1: 3 pages (at 5, 6, 40)",
        "snapshot 2: 1 page (at 40)",
        "snapshot 3: 0 pages",
        "restored: 64 of 64 pages are equal",
        ""
      ].join("\n"),
      stderr: "",
      status: 0
    })
  })

  it.skipIf(!available)("has an example of two processes, one of which serves the other's memory", () => {
    assert.deepStrictEqual(run("examples/two-processes.js"), {
      stdout: "the guest sees 1, 2, 3, 0\nthe pager served 4 faults in the memory of the guest\n",
      stderr: "",
      status: 0
    })
  })
})
