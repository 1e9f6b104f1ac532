/** `postcopy pause`: stops the guest between two slices. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

export const pause = Command.make(
  "pause",
  { control: Parameters.control },
  Effect.fnUntraced(function*({ control }) {
    const { askOnce } = yield* Effect.promise(() => import("./ControlClient.ts"))
    yield* askOnce(control, (guest) => guest.Pause())
    yield* (yield* Output).emit({ event: "paused" }, "paused")
  })
)
