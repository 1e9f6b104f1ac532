// Small C++ programs of the tests, compiled once a test file into a directory of its own. The package needs the
// compiler anyway, so the tests may need it too.
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const root = path.dirname(createRequire(import.meta.url).resolve("userfaultfd-napi/package.json"))

export const hasCompiler = spawnSync("c++", ["--version"]).error === undefined

export interface Program extends Disposable {
  readonly file: string
}

/** Compiles a file of this directory, with the addon's sources to include from. */
export const compiled = (name: string, ...flags: ReadonlyArray<string>): Program => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-program-"))
  const file = path.join(directory, path.parse(name).name)
  const source = fileURLToPath(new URL(name, import.meta.url))
  const result = spawnSync(
    "c++",
    ["-std=c++20", "-O1", "-pthread", "-D_GNU_SOURCE", "-I", path.join(root, "src"), ...flags, source, "-o", file],
    { encoding: "utf8" }
  )
  if (result.status !== 0) throw new Error(`${name} does not compile: ${result.stderr}`)
  return { file, [Symbol.dispose]: () => fs.rmSync(directory, { recursive: true }) }
}
