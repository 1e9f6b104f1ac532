/**
 * The name of a migration in logs, traces and reports of both sides. Nothing on the wire carries it: who starts both
 * commands gives both the same one, in the environment as other correlation is; without it each side has a UUID of its own.
 */
import * as Effect from "effect/Effect"
import { type Failure, usage } from "./Failure.ts"

export const VARIABLE = "POSTCOPY_MIGRATION_ID"

/** Goes into labels, logs and pages as it is. */
const NAME = /^[\w.:-]{1,128}$/

export const fromEnvironment = Effect.fnUntraced(
  function*(
    environment: Readonly<Record<string, string | undefined>>
  ): Effect.fn.Return<string | undefined, Failure> {
    const id = environment[VARIABLE]
    if (id === undefined || id === "") return undefined
    if (NAME.test(id)) return id
    return yield* usage(
      `${VARIABLE} in the environment is no name for a migration; give it 1 to 128 letters, digits and ._:-`
    )
  }
)
