/**
 * `--report FILE`: what a migration looked like, after the fact. `.html` is the live page's own picture as one document
 * that needs nothing else, `.json` the same data for programs.
 */
import { renameSync, writeFileSync } from "node:fs"
import * as Page from "./Page.ts"
import type { Picture, Sample } from "./Picture.ts"

export interface Contents {
  readonly title: string
  readonly about: Page.PageData["about"]
  readonly picture: Picture
  readonly samples: ReadonlyArray<Sample>
}

export type Format = "html" | "json"

/** By the name's ending; `undefined` for any other. */
export const formatOf = (path: string): Format | undefined => {
  const ending = /\.(html|json)$/i.exec(path)?.[1]?.toLowerCase()
  return ending === "html" || ending === "json" ? ending : undefined
}

/** For machines: `version` changes when a field changes its meaning. */
const json = ({ about, picture, samples, title }: Contents) => ({
  format: "postcopy-report",
  version: 1,
  title,
  about: Object.fromEntries(about),
  ...picture,
  samples
})

/** @throws the system's error when the file cannot be written. */
export const write = (path: string, contents: Contents): void => {
  const text = formatOf(path) === "json"
    ? `${JSON.stringify(json(contents), undefined, 2)}\n`
    : Page.render({ mode: "report", ...contents })
  // Whoever waits for the file finds all of it.
  writeFileSync(`${path}.partial`, text)
  renameSync(`${path}.partial`, path)
}
