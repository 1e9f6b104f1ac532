/** The diagrams of the documentation: drawn by their script, laid out as they should be, and true to the code. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { State } from "../../src/Report.ts"
import { hasBrowser, noBrowser, open } from "../web/Browser.ts"
import { checkout } from "./Document.ts"

const drawings = readdirSync(join(checkout, "docs/images")).filter((name) => name.endsWith(".svg"))

const questions = readFileSync(new URL("./drawing.js", import.meta.url), "utf8").replace("export ", "")

const show = async (name: string, scheme: "light" | "dark" = "light") => {
  const { complaints, page } = await open(pathToFileURL(join(checkout, "docs/images", name)).href, scheme)
  const ask = <A>(question: string): Promise<A> =>
    page.evaluate(`(() => { ${questions}; return drawing.${question}() })()`)
  return { ask, complaints, page }
}

describe("the diagrams of the documentation", () => {
  it("are what their script draws", () => {
    const { status, stderr } = spawnSync(process.execPath, [join(checkout, "scripts/diagrams.mjs"), "--check"], {
      encoding: "utf8"
    })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })

  it("are all shown somewhere, with words for who does not see them", () => {
    const text = readFileSync(join(checkout, "docs/architecture.md"), "utf8")
    for (const name of drawings) assert.match(text, new RegExp(`!\\[[^\\]]{40,}\\]\\(images/${name}\\)`), name)
    assert.isNotEmpty(drawings)
  })
})

describe.skipIf(!hasBrowser)(`in a browser${noBrowser}`, { timeout: 120_000 }, () => {
  it.each(drawings)("%s is a drawing whose words are all to be read", async (name) => {
    const { ask, complaints } = await show(name)
    const { arrows, root, said, words } = await ask<
      { root: string; words: number; arrows: number; said: Array<string> }
    >(
      "counts"
    )
    assert.strictEqual(root, "svg")
    assert.isAbove(words, 10)
    assert.isAbove(arrows, 10)
    assert.strictEqual(said.length, 2)
    assert.deepStrictEqual(await ask("cut"), [])
    assert.deepStrictEqual(await ask("overlapping"), [])
    assert.deepStrictEqual(await ask("tooWide"), [])
    assert.deepStrictEqual(complaints, [])
  })

  it.each(drawings)("%s is dark where the reader's system is", async (name) => {
    const grounds = await Promise.all((["light", "dark"] as const).map(async (scheme) => {
      const { page } = await show(name, scheme)
      return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    }))
    assert.deepStrictEqual(grounds, ["rgb(255, 255, 255)", "rgb(16, 21, 28)"])
  })

  it("states.svg has the states that status tells, and every arrow leads from one to another", async () => {
    const { ask } = await show("states.svg")
    assert.deepStrictEqual(new Set(await ask<Array<string>>("names")), new Set<string>(State.literals))
    assert.deepStrictEqual(await ask("astray"), [])
  })
})
