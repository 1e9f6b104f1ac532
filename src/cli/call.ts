/**
 * `postcopy call`: asks the guest, wherever in its life it is. While it is paused or has not arrived the call waits; once
 * it has moved away, or is parked or lost, it is refused, and that is not the caller's mistake: exit 70.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { type Failure, from, usage, withCode } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

const request = Argument.String("json").pipe(Argument.withDescription("The request, a JSON value"))

const checkJson = (text: string): Effect.Effect<void, Failure> =>
  Effect.try({
    try: () => void JSON.parse(text),
    catch: (error) =>
      usage(`the request is not JSON: ${(error as Error).message}; quote it for the shell: '{"op":"count"}'`)
  })

export const call = Command.make(
  "call",
  { control: Parameters.control, request },
  Effect.fnUntraced(function*({ control, request }) {
    yield* checkJson(request)
    const { connect } = yield* Effect.promise(() => import("./ControlClient.ts"))
    const { ask } = yield* connect(control)
    const answer = yield* ask((guest) => guest.Call({ request })).pipe(
      Effect.mapError((error) => error._tag === "MigrationError" ? withCode(from(error), 70) : from(error))
    )
    yield* (yield* Output).emit(JSON.parse(answer), answer)
  }, Effect.scoped)
).pipe(
  Command.withExamples([{
    command: `postcopy call --control vm.sock '{"op":"verify"}'`,
    description: "What can be asked is up to the guest"
  }])
)
