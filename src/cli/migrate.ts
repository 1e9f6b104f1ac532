/**
 * `postcopy migrate`: sends the guest behind a control socket and waits for the end. The migration is the guest's
 * process's own. Interrupted before the switchover the command takes it back and sees the guest running again before it
 * ends; interrupted later it only stops watching.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Binding from "../native/Binding.ts"
import type { Observation } from "../Observation.ts"
import type { Endpoint } from "../services/Endpoint.ts"
import * as Addresses from "./Addresses.ts"
import type { Target } from "./Control.ts"
import type { ControlClient } from "./ControlClient.ts"
import { Failure, from } from "./Failure.ts"
import * as MigrationId from "./MigrationId.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import * as Reporting from "./Reporting.ts"
import * as Viewing from "./Viewing.ts"

/** How long an interrupted command waits to see the guest running again. */
const CANCEL_PATIENCE = "15 seconds"

const PROGRESS_INTERVAL = "200 millis"

const targetOf = Effect.fnUntraced(
  function*(uri: string, endpoint: Endpoint, control: string): Effect.fn.Return<Target, Failure, Scope.Scope> {
    if (endpoint._tag !== "Fd") return { _tag: "Uri", uri }
    const addon = Binding.load()
    if (addon === undefined) {
      return yield* new Failure({
        tag: "Unsupported",
        message:
          `${uri} needs the addon, which cannot be loaded (${Binding.failure()}); run npm rebuild, or use tcp: or unix:`,
        code: 69
      })
    }
    const [{ descriptorPath }, { give }] = yield* Effect.promise(() =>
      Promise.all([import("./Control.ts"), import("./HandedDescriptors.ts")])
    )
    return { _tag: "Handed", token: yield* give(addon, descriptorPath(control), endpoint.fd) }
  }
)

/** Takes it back, or else lets it go on; says so, and how the report of it ends. */
const leave = Effect.fnUntraced(function*({ ask }: ControlClient, control: string, view: Viewing.View) {
  const output = yield* Output
  const cancelled = yield* ask((guest) => guest.Cancel()).pipe(
    Effect.interruptible,
    Effect.timeoutOption(CANCEL_PATIENCE),
    Effect.option
  )
  const { state } = yield* ask((guest) => guest.Status())
  const moved = Option.isNone(cancelled) && state !== "running" && state !== "paused"
  const words = moved
    ? `the guest had switched over: the migration goes on; see postcopy status --control ${control}`
    : "cancelled; the guest runs on at the source"
  yield* output.note(words)
  yield* view.finish({ error: `interrupted: ${words}` })
})

const watch = Effect.fnUntraced(function*({ ask }: ControlClient) {
  const { show } = yield* Output
  if (show === undefined) return yield* Effect.never
  let before: Observation | undefined
  while (true) {
    const now = yield* ask((guest) => guest.Observe({ cells: 0 }))
    yield* show(before, now)
    before = now
    yield* Effect.sleep(PROGRESS_INTERVAL)
  }
})

export const migrate = Command.make(
  "migrate",
  {
    uri: Parameters.uri,
    control: Parameters.control,
    nobg: Parameters.nobg,
    maxBandwidth: Flag.optional(Parameters.maxBandwidth),
    report: Viewing.report,
    prefault: Parameters.prefault,
    busyPoll: Parameters.busyPoll
  },
  Effect.fnUntraced(function*({ busyPoll, control, maxBandwidth, nobg, prefault, report: file, uri: text }) {
    const { endpoint, uri } = yield* Addresses.resolveUri(text)
    const id = yield* MigrationId.fromEnvironment(process.env)
    const { connect } = yield* Effect.promise(() => import("./ControlClient.ts"))
    const output = yield* Output
    const client = yield* connect(control)
    // Who is there is found out before a descriptor is given away.
    yield* client.ask((guest) => guest.Status())
    const view = yield* Viewing.open({
      web: Option.none(),
      report: file,
      title: `migration to ${uri}`,
      about: [["control socket", control], ["to", uri], ["background pages", nobg ? "off" : "on"]]
    })
    yield* view.attach(
      (cells) => Effect.map(client.ask((guest) => guest.Observe({ cells })), (source) => ({ source })),
      client
    )
    const to = yield* targetOf(uri, endpoint, control)
    const limit = Option.getOrUndefined(maxBandwidth)?.bytesPerSecond ?? null
    const tuning = {
      ...(Option.isSome(prefault) ? { prefault: prefault.value } : {}),
      ...(Option.isSome(busyPoll) ? { busyPollMicros: busyPoll.value } : {}),
      ...(id === undefined ? {} : { id })
    }
    const asked = client.ask((guest) => guest.Migrate({ to, background: !nobg, maxBandwidth: limit, ...tuning }))
    const report = yield* asked.pipe(
      Effect.raceFirst(watch(client)),
      Effect.onInterrupt(() => Effect.ignore(leave(client, control, view))),
      Effect.mapError(from),
      Effect.tapError(({ message }) => Effect.ignore(view.finish({ error: message })))
    )
    yield* view.finish({ reports: { source: report } })
    yield* output.emit({ event: "completed", report }, Reporting.summary(report))
  }, Effect.scoped)
).pipe(
  Command.withExamples([
    {
      command: "postcopy migrate tcp:10.0.0.2:4444 --control vm.sock",
      description: "To the host where `postcopy receive` waits"
    },
    { command: "postcopy migrate unix:/tmp/in --control vm.sock --nobg", description: "Send only what is asked for" }
  ])
)
