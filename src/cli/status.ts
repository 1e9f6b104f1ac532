/** `postcopy status`: how far either side of a migration is. With `--watch` again and again, until there is no more to see. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import type { Status } from "../Report.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

/** Often enough for an eye, seldom enough for the process that is busy moving pages. */
const INTERVAL = "200 millis"

const describe = ({ blockedMs, error, remaining, role, state, total, transferred }: Status): string => {
  const pages = total === 0 ? "" : `, ${transferred} of ${total} pages, ${remaining} remaining`
  const blocked = blockedMs === 0 ? "" : `, waited ${blockedMs.toFixed(1)} ms for pages`
  return `${role}: ${state}${pages}${blocked}${error === undefined ? "" : ` (${error})`}`
}

const isOver = ({ state }: Status) => state === "completed" || state === "failed"

export const status = Command.make(
  "status",
  {
    control: Parameters.control,
    watch: Parameters.toggle("watch", "Print it whenever it changes, until the migration ends")
  },
  Effect.fnUntraced(function*({ control, watch }) {
    const { connect } = yield* Effect.promise(() => import("./ControlClient.ts"))
    const output = yield* Output
    const { ask } = yield* connect(control)
    let last = ""
    while (true) {
      const current = yield* ask((guest) => guest.Status()).pipe(
        Effect.catchIf((failure) => last !== "" && failure.tag === "ControlLost", () => Effect.undefined)
      )
      if (current === undefined) return yield* output.note("the process has ended")
      const line = describe(current)
      if (line !== last) yield* output.emit(current, line)
      last = line
      if (!watch || isOver(current)) return
      yield* Effect.sleep(INTERVAL)
    }
  }, Effect.scoped)
).pipe(Command.withDescription("Role, state and pages of a guest's process"))
