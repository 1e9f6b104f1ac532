import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { available } from "./Kernel.ts"

const require = createRequire(import.meta.url)
const root = path.dirname(require.resolve("userfaultfd-napi/package.json"))

describe("the package", () => {
  it("exports by name what the addon has and the types declare", () => {
    const addon = require(path.join(root, "build", "userfaultfd.node")) as Record<string, unknown>
    const names = Object.keys(addon).sort()
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

  it.skipIf(!available)("has a first example that runs", () => {
    const example = /```js\n([\s\S]*?)```/.exec(fs.readFileSync(path.join(root, "README.md"), "utf8"))![1]!
    const { stdout, stderr, status } = spawnSync(process.execPath, ["-e", example], { cwd: root, encoding: "utf8" })
    assert.deepStrictEqual({ stdout, stderr, status }, { stdout: "page 7 is full of 7\n", stderr: "", status: 0 })
  })
})
