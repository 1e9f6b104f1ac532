/**
 * `postcopy receive`: waits for one incoming migration and holds the guest from then on. A failure before the switchover
 * ends the process; after it the guest is parked here, and the process stays so that its state can be asked for.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Incoming } from "../Migration.ts"
import type { MigrationError } from "../MigrationError.ts"
import type { Observation } from "../Observation.ts"
import type { Ending } from "../web/Picture.ts"
import * as Addresses from "./Addresses.ts"
import * as Exporting from "./Exporting.ts"
import { type Failure, from, fromMigration, silent, toObject, withCode } from "./Failure.ts"
import type { End, GuestProcess } from "./GuestProcess.ts"
import * as MigrationId from "./MigrationId.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import * as Reporting from "./Reporting.ts"
import * as Viewing from "./Viewing.ts"

const PROGRESS_INTERVAL = "200 millis"

/** What there is to wait for next: an outcome of the migration, or a wish to end the process. */
const next = <A>(outcome: Effect.Effect<A, MigrationError>, process: GuestProcess) =>
  Effect.raceFirst(
    Effect.map(Effect.result(outcome), (result) => ({ _tag: "Outcome" as const, result })),
    Effect.map(process.ended, (end) => ({ _tag: "End" as const, end }))
  )

/** Shows on a terminal how far it is. */
const watch = Effect.fnUntraced(function*({ guest }: Incoming): Effect.fn.Return<never> {
  const { show } = yield* Output
  if (show === undefined) return yield* Effect.never
  let before: Observation | undefined
  while (true) {
    const now = yield* guest.observe(0)
    yield* show(before, now)
    before = now
    yield* Effect.sleep(PROGRESS_INTERVAL)
  }
})

/** Follows the migration to its end; returns with the wish to end the process, unless the migration itself ends it. */
const follow = Effect.fnUntraced(function*(
  incoming: Incoming,
  process: GuestProcess,
  exitWhenComplete: boolean,
  view: Viewing.View
): Effect.fn.Return<End | "complete", Failure> {
  const output = yield* Output
  // The guest is here and must not suffer from a disk that is full.
  const finish = (ending: Ending) => Effect.catch(view.finish(ending), (failure) => output.fail(failure))
  const failed = Effect.fnUntraced(function*(error: MigrationError) {
    const told = fromMigration(error)
    // What arrived was refused, by whatever name: that is no mistake of this command line's.
    const failure = told.code === 1 ? withCode(told, 70) : told
    yield* finish({ error: error.message, reports: { destination: yield* incoming.reportNow } })
    yield* output.emit({ event: "failed", error: toObject(failure) })
    if (error.guest === "none" || error.guest === "source") return yield* failure
    // The guest is here and waits for memory: whoever asks is told so, until somebody ends it.
    yield* output.fail(failure)
    yield* process.ended
    return yield* silent(70)
  })
  const arrival = yield* next(incoming.running, process)
  if (arrival._tag === "End") return arrival.end
  if (Result.isFailure(arrival.result)) return yield* failed(arrival.result.failure)
  yield* output.emit({ event: "running" }, "running")
  const completion = yield* next(Effect.raceFirst(incoming.report, watch(incoming)), process)
  if (completion._tag === "End") return completion.end
  if (Result.isFailure(completion.result)) return yield* failed(completion.result.failure)
  const report = completion.result.success
  yield* finish({ reports: { destination: report } })
  yield* output.emit({ event: "completed", report }, Reporting.summary(report))
  return exitWhenComplete ? "complete" : yield* process.ended
})

export const receive = Command.make(
  "receive",
  {
    guest: Parameters.guest,
    uri: Parameters.uri,
    control: Flag.optional(Parameters.control),
    memory: Parameters.memory,
    postcopyFlags: Parameters.postcopyFlags,
    busyPoll: Parameters.busyPoll,
    exitWhenComplete: Parameters.toggle("exit-when-complete", "Exit 0 when all of the guest's memory is here"),
    report: Viewing.report,
    otlp: Exporting.otlp,
    metrics: Exporting.metrics,
    leash: Parameters.leash
  },
  Effect.fnUntraced(function*(options) {
    const module = yield* Parameters.resolveGuest(options.guest)
    const { uri } = yield* Addresses.resolveUri(options.uri)
    const id = yield* MigrationId.fromEnvironment(globalThis.process.env)
    const [GuestProcess, Migration, ExitGuard] = yield* Effect.promise(() =>
      Promise.all([import("./GuestProcess.ts"), import("../Migration.ts"), import("../guests/ExitGuard.ts")])
    )
    const output = yield* Output
    ExitGuard.install()
    if (options.leash) GuestProcess.leash()
    const view = yield* Viewing.open({
      web: Option.none(),
      report: options.report,
      title: `migration of ${options.guest}`,
      about: [["guest", options.guest], ["from", uri]]
    })
    const claimed = yield* GuestProcess.claim(Option.getOrUndefined(options.control))
    const incoming = yield* Migration.listen({
      guest: module,
      from: uri,
      options: { memoryMiB: Option.getOrUndefined(options.memory) },
      flags: options.postcopyFlags,
      id,
      busyPollMicros: Option.getOrUndefined(options.busyPoll)
    }).pipe(Effect.mapError(from))
    yield* Exporting.follow(options, incoming.guest)
    yield* view.attach(
      (cells) => Effect.map(incoming.guest.observe(cells), (destination) => ({ destination })),
      undefined
    )
    const process = yield* GuestProcess.open({
      guest: incoming.guest,
      control: claimed,
      migrate: Migration.migrate,
      // A guest that is parked is kept: what became of its migration is told by `follow`.
      endsBy: (error) => error._tag === "GuestError" || error.guest === "none"
    })
    yield* output.emit({ event: "listening", uri: incoming.uri }, `listening at ${incoming.uri}`)
    const end = yield* follow(incoming, process, options.exitWhenComplete, view)
    if (end !== "complete") yield* process.leave(end)
  }, (effect, options) => Exporting.exported(options)(Effect.scoped(effect)))
).pipe(
  Command.withExamples([{
    command: "postcopy receive ./guest.ts tcp:0.0.0.0:4444 --control vm.sock --memory 256",
    description: "The same module as at the source"
  }])
)
