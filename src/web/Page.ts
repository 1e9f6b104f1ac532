/**
 * Puts the page together: one HTML document without anything outside of it, live or as a report. The browser's part is in
 * `assets/`, plain modules; here they are joined into one, in the order of their imports.
 */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import type { Picture, Sample } from "./Picture.ts"

export interface PageData {
  readonly mode: "live" | "report"
  readonly title: string
  readonly picture: Picture
  readonly samples: ReadonlyArray<Sample>
  /** For the foot of the page: names and values. */
  readonly about: ReadonlyArray<readonly [name: string, value: string]>
  /** What a request to change something must carry; without it there are no controls. */
  readonly token?: string
}

const asset = (name: string) => readFileSync(new URL(`./assets/${name}`, import.meta.url), "utf8")

/** The modules of the browser, each after those that it imports. */
const modules = ["format.js", "map.js", "charts.js", "page.js"]

const script = () =>
  modules.map((name) =>
    asset(name).replaceAll(/^import [^;]*? from "\.\/[a-z]+\.js"\n/gm, "").replaceAll(/^export /gm, "")
  ).join("\n")

/** JSON that may stand in a script element. */
const json = (value: unknown) => JSON.stringify(value).replaceAll("<", "\\u003c")

/** Forbids everything but what is in the page itself, and talking to where it came from. */
const policy = (source: string) => {
  const hash = createHash("sha256").update(source).digest("base64")
  return `default-src 'none'; script-src 'sha256-${hash}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; ` +
    "base-uri 'none'; form-action 'none'"
}

export const render = (data: PageData): string => {
  const source = script()
  const parts: Record<string, string> = { css: asset("page.css"), js: source, data: json(data) }
  const meta = `<meta http-equiv="Content-Security-Policy" content="${policy(source)}">`
  return asset("page.html")
    .replace("<meta charset=\"utf-8\">", `<meta charset="utf-8">\n${meta}`)
    .replaceAll(/\/\*@(css|js|data)@\*\//g, (_, name: string) => parts[name]!)
}
