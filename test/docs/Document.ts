/**
 * A document as a story that can be run. Its blocks, by the word after the fence:
 *
 *   sh            run by bash, in order, in one shell and one directory; `exit=75`: how it ends
 *   sh checkout   the same, in a directory that has what a checkout has; `1000=10`: what is less for a test's patience
 *   output        what the `sh` block before it prints, figures apart
 *   ts file=…     written to that file; all of them are type-checked under strict settings
 *   sh npm        commands of a checkout that take too long: the scripts they name exist
 *   json, yaml    parsed
 *   text          pictures and declarations
 *
 * A document has blocks of the first or of the second kind. `postcopy` and `node` are this checkout's. After a block the shell waits until the processes that it left in the
 * background answer at their control sockets, as a reader does before going on.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

export const checkout = fileURLToPath(new URL("../..", import.meta.url))

export interface Block {
  readonly language: string
  readonly options: Readonly<Record<string, string>>
  readonly text: string
  readonly line: number
}

export const blocksOf = (path: string): ReadonlyArray<Block> => {
  const text = readFileSync(join(checkout, path), "utf8")
  return Array.from(text.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm), ({ 1: info, 2: body, index }) => {
    const [language = "", ...rest] = info!.trim().split(/\s+/)
    const options = Object.fromEntries(rest.map((word) => word.includes("=") ? word.split("=") : [word, ""]))
    return { language, options, text: body!, line: text.slice(0, index).split("\n").length }
  })
}

/** Figures, and how wide they are, differ from run to run. */
export const shape = (text: string) =>
  text.trim().split("\n").map((line) => line.trimEnd().replaceAll(/(?<![0-9a-zA-Z])\d+(\.\d+)?/g, "N"))

/** Those that `status` can be asked about as soon as they are there. */
const controlsOf = (text: string) =>
  Array.from(text.matchAll(/^postcopy (?:run|receive) .*--control (\S+).*&/gm), ([, path]) => path!)

const scriptOf = (blocks: ReadonlyArray<Block>, directory: string): string =>
  blocks.map(({ language, options, text }, i) => {
    if (language !== "sh" || "npm" in options) return ""
    const ready = controlsOf(text).map((path) =>
      `until [ -S ${path} ]; do kill -0 $!; sleep 0.05; done; postcopy status --control ${path} > /dev/null`
    ).join("\n")
    const expected = options["exit"] ?? "0"
    const lessened = Object.entries(options).filter(([name]) => /^\d+$/.test(name))
      .reduce((said, [many, few]) => said.replaceAll(new RegExp(`\\b${many}\\b`, "g"), few), text)
    return [
      `export DOCUMENT_OUT=${directory}/out.${i}`,
      "set +e",
      `{ (exit 0)\n${expected === "0" ? "set -e\n" : ""}${lessened}\n} > "$DOCUMENT_OUT"`,
      "code=$?; set -e",
      `[ $code = ${expected} ] || { echo "block ${i} ended with $code" >&2; exit 1; }`,
      ready
    ].join("\n")
  }).join("\n")

/** What of a checkout its commands work with. */
const parts = ["bin", "bench", "native", "node_modules", "package.json", "scripts", "src", "test"]

export interface Told {
  readonly status: number | null
  readonly stderr: string
  /** What block `i` printed. */
  readonly outputs: ReadonlyMap<number, string>
  readonly types: string
}

/** How long a document may take. */
export const SECONDS = 240

/** Runs a document from its beginning to its end. */
export const run = (path: string): Told => {
  const blocks = blocksOf(path)
  const inCheckout = blocks.some(({ options }) => "checkout" in options)
  const directory = mkdtempSync(join(tmpdir(), "postcopy-docs-"))
  try {
    const [bin, story, modules] = [
      join(directory, "bin"),
      join(directory, "story"),
      join(directory, "story/node_modules")
    ]
    for (const one of [bin, story, modules]) mkdirSync(one)
    // What goes on in the background says its part on the terminal of a reader; here that is not the block's output.
    const wrapper = `#!/bin/bash
      case "$1" in run|receive)
        [ /proc/self/fd/1 -ef "$DOCUMENT_OUT" ] && exec ${checkout}bin/postcopy.js "$@" > /dev/null ;;
      esac
      exec ${checkout}bin/postcopy.js "$@"`
    writeFileSync(join(bin, "postcopy"), wrapper, { mode: 0o755 })
    symlinkSync(process.execPath, join(bin, "node"))
    symlinkSync(checkout, join(modules, "postcopy"))
    for (const name of ["effect", "@effect", "@types"]) {
      symlinkSync(join(checkout, "node_modules", name), join(modules, name))
    }
    const files = blocks.flatMap(({ language, options, text }) => {
      const file = options["file"]
      if (language !== "ts" || file === undefined) return []
      writeFileSync(join(story, file), text)
      return [file]
    })
    const compilerOptions = {
      module: "NodeNext",
      target: "ES2024",
      lib: ["ES2024", "ESNext.Disposable"],
      types: ["node"],
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      exactOptionalPropertyTypes: true,
      allowImportingTsExtensions: true
    }
    if (inCheckout) {
      rmSync(modules, { recursive: true })
      for (const name of parts) symlinkSync(join(checkout, name), join(story, name))
    } else writeFileSync(join(story, "package.json"), `{"type":"module"}`)
    writeFileSync(join(story, "tsconfig.json"), JSON.stringify({ compilerOptions, files }))
    const compiler = join(checkout, "node_modules/typescript/bin/tsc")
    const types = files.length === 0
      ? ""
      : spawnSync(process.execPath, [compiler, "-p", story], { encoding: "utf8" }).stdout
    const script = `cd ${story}\nset -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n${
      scriptOf(blocks, directory)
    }`
    const { status, stderr } = spawnSync("timeout", [
      "-k",
      "5",
      String(SECONDS),
      "bash",
      ...(process.env["DOC_TRACE"] === undefined ? [] : ["-x"]),
      "-c",
      script
    ], {
      encoding: "utf8",
      env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}` }
    })
    const outputs = new Map(
      blocks.flatMap(({ language, options }, i) =>
        language === "sh" && !("npm" in options) && status === 0
          ? [[i, readFileSync(join(directory, `out.${i}`), "utf8")] as const]
          : []
      )
    )
    return { status, stderr, outputs, types }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
