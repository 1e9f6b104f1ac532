/** `postcopy set`: changes what can be changed while a migration runs: its bandwidth limit. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import * as Rate from "./Rate.ts"

export const set = Command.make(
  "set",
  { control: Parameters.control, maxBandwidth: Parameters.maxBandwidth },
  Effect.fnUntraced(function*({ control, maxBandwidth: { bytesPerSecond } }) {
    const { askOnce } = yield* Effect.promise(() => import("./ControlClient.ts"))
    yield* askOnce(control, (guest) => guest.SetBandwidth({ bytesPerSecond: bytesPerSecond ?? null }))
    yield* (yield* Output).emit(
      { event: "set", maxBandwidth: bytesPerSecond ?? null },
      `bandwidth limit: ${Rate.format(bytesPerSecond)}`
    )
  })
).pipe(
  Command.withExamples([{
    command: "postcopy set --control vm.sock --max-bandwidth 100M",
    description: "100 MiB/s from now on"
  }])
)
