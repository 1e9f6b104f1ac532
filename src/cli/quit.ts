/**
 * `postcopy quit`: ends guest and process. Returns when the process has let go of its control socket, so that the path
 * can be used again; a source that still owes pages ends later, by itself, and says so.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { existsSync } from "node:fs"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

/** The socket's file is the last thing to go; how long that may take before the command stops looking. */
const PATIENCE = "10 seconds"

const gone = (path: string) =>
  Effect.sync(() => !existsSync(path)).pipe(
    Effect.repeat({ until: (isGone) => isGone, schedule: Schedule.spaced("10 millis") }),
    Effect.timeoutOption(PATIENCE)
  )

export const quit = Command.make(
  "quit",
  { control: Parameters.control },
  Effect.fnUntraced(function*({ control }) {
    const { askOnce } = yield* Effect.promise(() => import("./ControlClient.ts"))
    const { owesPages } = yield* askOnce(control, (guest) => guest.Quit()).pipe(
      // It may end faster than it answers.
      Effect.catchIf((failure) => failure.tag === "ControlLost", () => Effect.succeed({ owesPages: false }))
    )
    if (!owesPages) yield* gone(control)
    yield* (yield* Output).emit(
      { event: "quit", owesPages },
      owesPages ? "the process ends as soon as the destination has fetched the pages that it still owes" : "ended"
    )
  })
)
