/** `postcopy resume`: lets a paused guest run on. Refused once it has moved. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

export const resume = Command.make(
  "resume",
  { control: Parameters.control },
  Effect.fnUntraced(function*({ control }) {
    const { askOnce } = yield* Effect.promise(() => import("./ControlClient.ts"))
    yield* askOnce(control, (guest) => guest.Resume())
    yield* (yield* Output).emit({ event: "resumed" }, "running")
  })
)
