/**
 * The one place that loads the addon. It is loaded on first use, never at import time, so that tests on virtual time,
 * `--help`, `inspect` and the source side work where there is no addon. What the addon is missing for is kept and told
 * to whoever needs it.
 */
import { createRequire } from "node:module"

/** The addon as its own declarations describe it. */
export type Addon = typeof import("userfaultfd-napi")

let loaded: { readonly addon: Addon | undefined; readonly failure: unknown } | undefined

const attempt = () => {
  if (loaded !== undefined) return loaded
  try {
    const require = createRequire(import.meta.url)
    loaded = { addon: require("userfaultfd-napi") as Addon, failure: undefined }
  } catch (failure) {
    loaded = { addon: undefined, failure }
  }
  return loaded
}

/** The addon, or `undefined` where it cannot be loaded. */
export const load = (): Addon | undefined => attempt().addon

/** Why {@link load} gave nothing. */
export const failure = (): string => {
  const cause = attempt().failure
  return cause instanceof Error ? cause.message : String(cause)
}

/** The addon; throws where it is missing, for callers that already checked. */
export const require_ = (): Addon => {
  const addon = load()
  if (addon === undefined) throw new Error(failure())
  return addon
}
export { require_ as require }
