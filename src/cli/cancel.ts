/** `postcopy cancel`: takes back a migration that has not switched over; the guest runs on at the source. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

export const cancel = Command.make(
  "cancel",
  { control: Parameters.control },
  Effect.fnUntraced(function*({ control }) {
    const { askOnce } = yield* Effect.promise(() => import("./ControlClient.ts"))
    yield* askOnce(control, (guest) => guest.Cancel())
    yield* (yield* Output).emit({ event: "cancelled" }, "cancelled; the guest runs on here")
  })
)
