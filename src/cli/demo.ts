/** `postcopy demo`: the whole of it on one machine, and the proof that nothing was lost. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Outcome } from "./Demonstration.ts"
import * as Exporting from "./Exporting.ts"
import { Failure } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import * as Rate from "./Rate.ts"
import * as Reporting from "./Reporting.ts"
import * as Viewing from "./Viewing.ts"

const describe = (guest: string, outcome: Outcome): string => {
  const { after, before, calls, destination, source } = outcome
  return [
    `The ${guest} guest moved between two processes of this machine while it ran.`,
    Reporting.describe(source),
    Reporting.describe(destination),
    `before, at the source:     ${before.words}`,
    `after, at the destination: ${after.words}`,
    `queries: ${calls.source} answered at the source, ${calls.destination} at the destination, none lost`,
    `the query that met the switchover was answered after ${calls.switchoverMs.toFixed(1)} ms`,
    `first answer at the destination with ${outcome.missingAtFirstAnswer} of ${destination.pages.total} pages still missing`,
    `downtime, last step at the source to first step at the destination: ${outcome.downtimeMs.toFixed(1)} ms`,
    outcome.verified ? "verified: the guest is whole" : "NOT verified: the guest's contents changed"
  ].join("\n")
}

/** With a live page and no limit of the user's own the demo takes a few seconds instead of a few tenths of one. */
const VISIBLE_RATE = 24 * 2 ** 20

const different = (outcome: Outcome): Failure =>
  new Failure({
    tag: "NotVerified",
    message:
      `the guest's contents are not what they were: before: ${outcome.before.words}; after: ${outcome.after.words}; this is a bug of postcopy, please report it`,
    code: 70
  })

export const demo = Command.make(
  "demo",
  {
    guest: Flag.Literals("guest", ["sqlite", "counter"]).pipe(
      Flag.withDescription("Built-in guest to move"),
      Flag.withDefault("sqlite" as const)
    ),
    memory: Parameters.memory,
    nobg: Parameters.nobg,
    maxBandwidth: Flag.optional(Parameters.maxBandwidth),
    web: Viewing.web,
    report: Viewing.report,
    otlp: Exporting.otlp
  },
  Effect.fnUntraced(function*({ guest, maxBandwidth, memory, nobg, otlp, report, web }) {
    const { perform } = yield* Effect.promise(() => import("./Demonstration.ts"))
    const output = yield* Output
    const limit = Option.match(maxBandwidth, {
      onNone: () => Option.isSome(web) ? VISIBLE_RATE : undefined,
      onSome: ({ bytesPerSecond }) => bytesPerSecond
    })
    const view = yield* Viewing.open({
      web,
      report,
      title: `demo: the ${guest} guest moves between two processes`,
      about: [
        ["guest", guest],
        ["limit at the start", Rate.format(limit)],
        ["background pages at the start", nobg ? "off" : "on"]
      ]
    })
    const outcome = yield* perform({
      guest,
      memoryMiB: Option.getOrUndefined(memory),
      background: !nobg,
      maxBandwidth: limit,
      otlp: Option.getOrUndefined(otlp),
      view
    })
    yield* output.emit({ event: "report", ...outcome }, describe(guest, outcome))
    yield* view.linger
    if (!outcome.verified) return yield* different(outcome)
  }, Effect.scoped)
).pipe(
  Command.withExamples([
    { command: "postcopy demo", description: "An SQLite database, queried throughout" },
    { command: "postcopy demo --web", description: "With a live page in the browser" },
    { command: "postcopy demo --guest counter --memory 256 --nobg", description: "Only pages that are asked for" }
  ])
)
