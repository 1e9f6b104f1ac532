/** Addresses that commands are given, checked before anything is touched. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { resolve } from "node:path"
import { type Endpoint, parse as parseEndpoint } from "../services/Endpoint.ts"
import { Failure } from "./Failure.ts"

/** Checked, and with a `unix:` path made absolute: it is meant relative to where the command was given. */
export const resolveUri = Effect.fnUntraced(
  function*(text: string): Effect.fn.Return<{ readonly uri: string; readonly endpoint: Endpoint }, Failure> {
    const uri = text.startsWith("unix:") && text.length > "unix:".length ? `unix:${resolve(text.slice(5))}` : text
    const parsed = parseEndpoint(uri)
    if (Result.isSuccess(parsed)) return { uri, endpoint: parsed.success }
    const { _tag, detail } = parsed.failure
    return yield* new Failure({ tag: _tag, message: detail, code: _tag === "Unsupported" ? 69 : 1 })
  }
)

/** A monitor's address as the library takes it, checked. */
export const resolveQmp = Effect.fnUntraced(function*(text: string): Effect.fn.Return<string, Failure> {
  const { uri } = yield* resolveUri(/^(unix|tcp|fd):/.test(text) ? text : `unix:${text}`)
  return uri
})
