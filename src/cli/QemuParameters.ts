/** Arguments that several `qemu` commands share. */
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type { Failure } from "./Failure.ts"
import { resolveUri } from "./Parameters.ts"

export const image = Argument.String("image").pipe(
  Argument.withDescription("Directory of the image")
)

export const qmpArgument = Argument.String("qmp").pipe(
  Argument.withDescription("QMP socket of the QEMU: a path, unix:PATH or tcp:HOST:PORT")
)

export const qmp = Flag.String("qmp").pipe(
  Flag.withMetavar("QMP"),
  Flag.withDescription("QMP socket of the destination: sets its capabilities and starts the listening"),
  Flag.optional
)

/** A monitor's address as the library takes it, checked. */
export const resolveQmp = Effect.fnUntraced(function*(text: string): Effect.fn.Return<string, Failure> {
  const { uri } = yield* resolveUri(/^(unix|tcp|fd):/.test(text) ? text : `unix:${text}`)
  return uri
})
