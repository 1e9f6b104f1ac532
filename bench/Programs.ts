/**
 * The programs in C that stand beside ours: compiled from this folder at run time by the system's compiler, into a
 * directory that goes with the process.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const here = fileURLToPath(new URL(".", import.meta.url))
const made = new Map<string, string>()
let directory: string | undefined

/** Where sockets and programs of this run lie. */
export const scratch = (): string => {
  if (directory === undefined) {
    const path = mkdtempSync(join(tmpdir(), "postcopy-bench-"))
    process.on("exit", () => rmSync(path, { recursive: true, force: true }))
    directory = path
  }
  return directory
}

/** Compilers of C, the first that is there is taken. A C++ compiler has one inside. */
const compilers = [["cc"], ["c++", "-x", "c"]] as const

/** The path of `name.c`, compiled. @throws Error when there is no compiler, or it refuses */
export const program = (name: "floor" | "relay" | "warm"): string => {
  const known = made.get(name)
  if (known !== undefined) return known
  const output = join(scratch(), name)
  for (const [compiler, ...flags] of compilers) {
    const result = spawnSync(compiler, [...flags, "-O2", "-pthread", "-o", output, join(here, `${name}.c`)], {
      encoding: "utf8"
    })
    if (result.error !== undefined) continue
    if (result.status !== 0) throw new Error(`${compiler} refused bench/${name}.c:\n${result.stderr}`)
    made.set(name, output)
    return output
  }
  throw new Error("the benchmarks need a C compiler: install g++ or gcc")
}
