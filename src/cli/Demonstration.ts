/**
 * The demo's plot: two processes of its own, a guest that runs in the first, queries that never cease, and a migration to
 * the second over a unix socket. What is believed at the end was looked at by the guest itself, before and after.
 *
 * ```
 *   source:       running ── examined ──── migrate ───────────┐ page requests, background ┐ report
 *   destination:  listening ── a query waits ───── running ── answer ── examined ── (touched) ── report
 * ```
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Observation } from "../Observation.ts"
import type { Report } from "../Report.ts"
import * as ChildGuest from "./ChildGuest.ts"
import { connect } from "./ControlClient.ts"
import * as DemoTraffic from "./DemoTraffic.ts"
import { type Evidence, workloads } from "./DemoWorkload.ts"
import { Failure, from, withCode } from "./Failure.ts"
import * as MigrationId from "./MigrationId.ts"
import { Output } from "./Output.ts"
import type { View } from "./Viewing.ts"

export interface DemonstrationOptions {
  readonly guest: keyof typeof workloads
  readonly memoryMiB: number | undefined
  readonly background: boolean
  readonly maxBandwidth: number | undefined
  /** A collector for both processes. */
  readonly otlp: string | undefined
  readonly view: View
}

export interface Outcome {
  readonly source: Report
  readonly destination: Report
  readonly verified: boolean
  /** From the guest's last step at the source to its first at the destination. */
  readonly downtimeMs: number
  readonly missingAtFirstAnswer: number
  readonly calls: DemoTraffic.Tally
  readonly before: Evidence
  readonly after: Evidence
}

/** How long no page may arrive while some are missing before the demo gives up. */
const STALL_MILLIS = 30_000

/** So many queries the guest answers at the destination before anybody calls it moved. */
const QUERIES_AFTER = 50

/** How long a process whose connection broke may take to say why. */
const LAST_WORDS = "2 seconds"

const OBSERVE_INTERVAL = "200 millis"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postcopy-demo-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Shows how far it is, and fails when it goes no further. */
const observe = Effect.fnUntraced(function*({ client }: DemoTraffic.Side): Effect.fn.Return<never, Failure> {
  const { show } = yield* Output
  let before: Observation | undefined
  let left = Infinity
  let since = performance.now()
  while (true) {
    const seen = yield* client.ask((guest) => guest.Observe({ cells: 0 }))
    const { status } = seen
    if (status.remaining !== left || status.remaining === 0) since = performance.now()
    left = status.remaining
    if (performance.now() - since > STALL_MILLIS) {
      return yield* new Failure({
        tag: "Stalled",
        message: `no page has arrived for ${
          STALL_MILLIS / 1000
        } s and ${left} are missing; the destination is ${status.state}; this is a bug of postcopy, please report it`,
        code: 70
      })
    }
    if (show !== undefined) yield* show(before, seen)
    before = seen
    yield* Effect.sleep(OBSERVE_INTERVAL)
  }
})

const begin = Effect.fnUntraced(function*(options: DemonstrationOptions, path: string) {
  const { guest } = workloads[options.guest]
  const uri = `unix:${join(path, "link")}`
  const id = randomUUID()
  const named = { [MigrationId.VARIABLE]: id }
  const controls = { source: join(path, "source"), destination: join(path, "destination") }
  const shared = [
    ...(options.memoryMiB === undefined ? [] : ["--memory", String(options.memoryMiB)]),
    ...(options.otlp === undefined ? [] : ["--otlp", options.otlp])
  ]
  const source = yield* ChildGuest.start("source", ["run", guest, "--control", controls.source, ...shared], named)
  const destination = yield* ChildGuest.start("destination", [
    "receive",
    guest,
    uri,
    "--control",
    controls.destination,
    ...shared
  ], named)
  yield* Effect.all([source.event("running"), destination.event("listening")], { concurrency: 2, discard: true })
  return {
    id,
    uri,
    source: { child: source, side: { name: "source" as const, client: yield* connect(controls.source) } },
    destination: {
      child: destination,
      side: { name: "destination" as const, client: yield* connect(controls.destination) }
    }
  }
})

const plot = Effect.fnUntraced(
  function*(options: DemonstrationOptions): Effect.fn.Return<Outcome, Failure, Scope.Scope> {
    const workload = workloads[options.guest]
    const output = yield* Output
    const say = output.progress ?? (() => Effect.void)
    yield* say(`starting two processes with the ${options.guest} guest`)
    const { destination, id, source, uri } = yield* begin(options, yield* directory)
    const ended = Effect.raceFirst(source.child.ended, destination.child.ended)
    const watched = <A, R>(effect: Effect.Effect<A, Failure, R>) =>
      Effect.raceFirst(effect, ended).pipe(
        // Its connection breaks before a process has ended: what it ended with says more.
        Effect.catchIf((failure) => failure.tag === "ControlLost", (failure) =>
          Effect.timeoutOrElse(ended, { duration: LAST_WORDS, orElse: () => Effect.fail(failure) }))
      )

    const { view } = options
    const look = (cells: number) =>
      Effect.all({
        source: source.side.client.ask((guest) => guest.Observe({ cells })),
        destination: destination.side.client.ask((guest) => guest.Observe({ cells }))
      }, { concurrency: 2 })
    yield* view.attach(look, source.side.client)

    return yield* Effect.gen(function*() {
      yield* say("waiting for a viewer of the page")
      yield* view.opened
      yield* say("examining the guest at the source")
      const traffic = yield* DemoTraffic.start(source.side, destination.side, workload.query)
      const before = yield* workload.examine(DemoTraffic.askOf(source.side))
      // Waits at the destination and is answered as soon as the guest runs there.
      const early = yield* Effect.forkScoped(
        DemoTraffic.askOf(destination.side)(workload.query).pipe(
          Effect.andThen(destination.side.client.ask((guest) => guest.Status())),
          Effect.map(({ remaining }) => remaining)
        )
      )
      const { background, maxBandwidth = null } = options
      const sending = yield* source.side.client.ask((guest) =>
        guest.Migrate({ to: { _tag: "Uri", uri }, background, maxBandwidth, id })
      ).pipe(Effect.mapError(from), Effect.forkScoped)

      const after = yield* Effect.gen(function*() {
        yield* Effect.raceFirst(destination.child.event("running"), Effect.andThen(Fiber.join(sending), Effect.never))
        const evidence = yield* workload.examine(DemoTraffic.askOf(destination.side))
        if (!background) yield* DemoTraffic.askOf(destination.side)(workload.touch)
        return evidence
      }).pipe(Effect.raceFirst(traffic.failed), Effect.raceFirst(observe(destination.side)))

      const [sourceReport, completed] = yield* Effect.all(
        [Fiber.join(sending), destination.child.event("completed")],
        { concurrency: 2 }
      ).pipe(Effect.raceFirst(traffic.failed), Effect.raceFirst(observe(destination.side)))
      const missing = yield* Fiber.join(early)
      yield* Effect.raceFirst(traffic.answeredAtDestination(QUERIES_AFTER), traffic.failed)
      yield* traffic.stop
      const destinationReport = completed["report"] as Report
      const outcome: Outcome = {
        source: sourceReport,
        destination: destinationReport,
        verified: before.ok && after.ok && before.fingerprint === after.fingerprint,
        downtimeMs: downtime(sourceReport, destinationReport),
        missingAtFirstAnswer: destinationReport.missingAtFirstAnswer ?? missing,
        calls: { ...traffic.tally },
        before,
        after
      }
      yield* view.finish({ reports: { source: sourceReport, destination: destinationReport }, outcome })
      return outcome
    }).pipe(watched)
  }
)

/** As the command itself will end with it. */
const sentenceOf = (cause: Cause.Cause<Failure>): string =>
  Cause.hasInterruptsOnly(cause) ? "interrupted" : (Cause.squash(cause) as Error).message

const downtime = (source: Report, destination: Report): number =>
  Number(BigInt(destination.guestStepNanos ?? 0) - BigInt(source.guestStepNanos ?? 0)) / 1e6

/** A failed migration leaves no guest behind here: both processes end with the demo. */
export const perform = (options: DemonstrationOptions): Effect.Effect<Outcome, Failure> =>
  plot(options).pipe(
    Effect.onError((cause) => Effect.ignore(options.view.finish({ error: sentenceOf(cause) }))),
    Effect.scoped,
    Effect.mapError((failure) => failure.code === 75 ? withCode(failure, 70) : failure)
  )
