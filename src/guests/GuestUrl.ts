/**
 * Which module a guest's name means: one of the guests that come with this package, or a file.
 */
import * as Effect from "effect/Effect"
import { resolve as resolvePath } from "node:path"
import { pathToFileURL } from "node:url"
import { GuestError } from "./GuestError.ts"

/** Guests that come with this package; a file of the same name is meant with `./` before it. */
export const builtins = ["counter", "sqlite"] as const

/** Of this package's own files: `.ts` as they are, `.js` when built. */
export const extension = new URL(import.meta.url).pathname.endsWith(".js") ? ".js" : ".ts"

/** The URL to import: of a built-in, of a path relative to the working directory, or the one given. */
export const resolve = (module: URL | string): Effect.Effect<string, GuestError> =>
  Effect.suspend(() => {
    if (module instanceof URL) return Effect.succeed(module.href)
    if (module === "") {
      return Effect.fail(new GuestError({ phase: "load", message: "the guest module's name is empty" }))
    }
    if ((builtins as ReadonlyArray<string>).includes(module)) {
      return Effect.succeed(new URL(`./builtin/${module}${extension}`, import.meta.url).href)
    }
    return Effect.succeed(/^(file|data):/.test(module) ? module : pathToFileURL(resolvePath(module)).href)
  })
