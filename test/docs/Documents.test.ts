/** What the documentation says to type works, and prints what it says; every block of every document is looked at. */
import { assert, describe, it } from "@effect/vitest"
import * as Yaml from "effect/encoding/Yaml"
import { spawnSync } from "node:child_process"
import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { canReceive, why } from "../cli/Shells.ts"
import * as Machine from "../qemu/Machine.ts"
import { blocksOf, checkout, run, SECONDS, shape } from "./Document.ts"

const stories = [
  "README.md",
  "docs/getting-started.md",
  "docs/guests.md",
  "docs/operations.md",
  "docs/failure-modes.md",
  "docs/testing.md",
  "docs/performance.md",
  "docs/qemu.md"
]

/** Why a document cannot be run here. */
const lacking = (path: string): string | undefined => path === "docs/qemu.md" ? Machine.missing : undefined

/** All there are; those of the addon are its own tests' to look at. */
const documents = globSync(["*.md", "docs/*.md", "examples/**/*.md"], { cwd: checkout }).toSorted()

describe.skipIf(!canReceive)(`what a document says to type${why}`, { timeout: (SECONDS + 30) * 1000 }, () => {
  for (const path of stories) {
    const without = lacking(path)
    it.skipIf(without !== undefined)(`${path}${without === undefined ? "" : ` (skipped: ${without})`}`, () => {
      const { outputs, status, stderr, types } = run(path)
      assert.strictEqual(types, "", path)
      assert.strictEqual(status, 0, `${path}: ${stderr}`)
      const blocks = blocksOf(path)
      for (const [i, { language, line, text }] of blocks.entries()) {
        if (language !== "output") continue
        assert.deepStrictEqual(shape(outputs.get(i - 1) ?? ""), shape(text), `${path}:${line}`)
      }
    })
  }
})

describe("every document", () => {
  const parsers: Record<string, (text: string) => unknown> = {
    json: JSON.parse,
    yaml: Yaml.parse
  }
  it.each(documents)("%s has only blocks that are run, checked or pictures", (path) => {
    const scripts = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8")).scripts
    for (const { language, line, options, text } of blocksOf(path)) {
      const where = `${path}:${line}`
      parsers[language]?.(text)
      switch (language) {
        case "sh":
          if (!("npm" in options)) assert.include(stories, path, `${where} is never run`)
          for (const [, script] of text.matchAll(/npm (?:run )?([a-z:]+)/g)) {
            assert.isTrue(
              ["ci", "install", "rebuild"].includes(script!) || script! in scripts,
              `${where}: npm run ${script}`
            )
          }
          break
        case "ts":
          assert.include(stories, path, `${where} is never checked`)
          assert.isString(options["file"], `${where} has no file=`)
          break
        case "output":
        case "text":
        case "json":
        case "yaml":
          assert.isNotEmpty(text)
          break
        default:
          assert.fail(`${where}: a block of "${language}"`)
      }
    }
  })

  it.each(documents)("%s links only to what is there", (path) => {
    const text = readFileSync(join(checkout, path), "utf8").replaceAll(/^```[\s\S]*?^```/gm, "")
    for (const [, link] of text.matchAll(/(?:\]\(|src="|srcset=")([^)"#\s]+)/g)) {
      if (/^https?:/.test(link!)) continue
      assert.isTrue(existsSync(join(checkout, dirname(path), link!)), `${path} → ${link}`)
    }
  })

  it("the API reference is what the sources say", () => {
    const { status, stderr } = spawnSync(process.execPath, [join(checkout, "scripts/api.mjs"), "--check"], {
      encoding: "utf8"
    })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })

  it("the API reference has every export", async () => {
    const text = readFileSync(join(checkout, "docs/api.md"), "utf8")
    for (const entry of ["index", "services", "testing", "Guest"]) {
      const names = Object.keys(await import(`../../src/${entry}.ts`))
      for (const name of names) {
        if (name !== "Guest") {
          assert.match(text, new RegExp(`^### ${name}$`, "m"), `${name} is missing: npm run docs:api`)
        }
      }
    }
  })
})
