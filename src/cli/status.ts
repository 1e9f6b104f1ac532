/** `postcopy status`: how far either side of a migration is. With `--watch` again and again, until there is no more to see. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Observation } from "../Observation.ts"
import type { Status } from "../Report.ts"
import type { ControlClient } from "./ControlClient.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import * as Viewing from "./Viewing.ts"

/** Often enough for an eye, seldom enough for the process that is busy moving pages. */
const INTERVAL = "200 millis"

const describe = ({ blockedMs, error, remaining, role, state, total, transferred }: Status): string => {
  const pages = total === 0 ? "" : `, ${transferred} of ${total} pages, ${remaining} remaining`
  const blocked = blockedMs === 0 ? "" : `, waited ${blockedMs.toFixed(1)} ms for pages`
  return `${role}: ${state}${pages}${blocked}${error === undefined ? "" : ` (${error})`}`
}

const isOver = ({ state }: Status) => state === "completed" || state === "failed"

/** Shows the page until the process behind the socket has ended, or the command is interrupted. */
const show = Effect.fnUntraced(
  function*(web: Option.Option<Viewing.WebAddress>, client: ControlClient, control: string) {
    const observe = (cells: number) => client.ask((guest) => guest.Observe({ cells }))
    const { blocks, memoryBytes, status: { role } } = yield* observe(0)
    const view = yield* Viewing.open({
      web,
      report: Option.none(),
      title: `${role} behind ${control}`,
      about: [["RAM blocks", blocks.map(({ idstr }) => idstr).join(", ")], ["bytes of memory", String(memoryBytes)]]
    })
    const side = (seen: Observation) => role === "source" ? { source: seen } : { destination: seen }
    yield* view.attach((cells) => Effect.map(observe(cells), side), client)
    yield* Effect.forever(Effect.andThen(observe(0), Effect.sleep(INTERVAL))).pipe(
      Effect.catch((failure) => view.finish({ error: failure.message })),
      Effect.onInterrupt(() => Effect.ignore(view.finish({})))
    )
  }
)

export const status = Command.make(
  "status",
  {
    control: Parameters.control,
    watch: Parameters.toggle("watch", "Print it whenever it changes, until the migration ends"),
    web: Viewing.web
  },
  Effect.fnUntraced(function*({ control, watch, web }) {
    const { connect } = yield* Effect.promise(() => import("./ControlClient.ts"))
    const output = yield* Output
    const client = yield* connect(control)
    if (Option.isSome(web)) return yield* show(web, client, control)
    const { ask } = client
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
)
