/**
 * What `postcopy qemu restore` does, once it is known what was asked for. Once the guest may run it depends on this
 * process: a first signal only makes it send what is left, a second one ends it, and `--resume` goes on from there.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type { RestoreReport, Restoring } from "../qemu/RestoreMachine.ts"
import * as Addresses from "./Addresses.ts"
import { Failure, usage } from "./Failure.ts"
import { Output } from "./Output.ts"
import { fromQemu } from "./QemuFailure.ts"
import * as QemuReporting from "./QemuReporting.ts"
import type { Rate } from "./Rate.ts"
import * as Signals from "./Signals.ts"

/** A restore as the command line asks for it. */
export interface Asked {
  readonly image: string
  readonly uri: string
  readonly qmp: Option.Option<string>
  readonly nobg: boolean
  readonly maxBandwidth: Option.Option<{ readonly bytesPerSecond: Rate }>
  readonly record: Option.Option<string>
  readonly replay: Option.Option<string>
  readonly resume: boolean
  readonly preempt: boolean
}

const PROGRESS_INTERVAL = "200 millis"

const watch = Effect.fnUntraced(function*({ progress }: Restoring) {
  const output = yield* Output
  if (output.progress === undefined) return yield* Effect.never
  while (true) {
    const { sent, total } = progress()
    yield* output.progress(QemuReporting.progress("restoring", sent, total))
    yield* Effect.sleep(PROGRESS_INTERVAL)
  }
})

const describe = ({ bytesOnWire, loadedMs, memoryBytes, pages, resumed, throughputMiBps, totalMs }: RestoreReport) =>
  [
    `${resumed ? "resumed" : "restored"} ${(memoryBytes / 2 ** 20).toFixed(1)} MiB in ${totalMs.toFixed(0)} ms` +
    (loadedMs === null ? "" : `; its devices were loaded after ${loadedMs.toFixed(1)} ms`),
    `  ${pages.onDemand} pages on demand, ${pages.background} in the background, ${pages.fill} of them zero` +
    (pages.had > 0 ? `; the destination had ${pages.had}` : ""),
    `  ${(bytesOnWire / 2 ** 20).toFixed(1)} MiB on the wire, ${throughputMiBps.toFixed(0)} MiB/s`
  ].join("\n")

/** What a first signal does, and a second one. */
const obey = Effect.fnUntraced(function*({ sendRest }: Restoring, signals: Queue.Dequeue<Signals.Signal>) {
  const output = yield* Output
  yield* Queue.take(signals)
  yield* output.note("the guest runs on this image's pages: sending what is left; a second signal ends it at once")
  yield* sendRest
  yield* Queue.take(signals)
  return yield* new Failure({
    tag: "Interrupted",
    message: "ended before every page was sent: the guest waits at the destination; go on with qemu restore --resume",
    code: 70
  })
})

export const restore = Effect.fnUntraced(function*(asked: Asked) {
  const { image, maxBandwidth, nobg, preempt, qmp, record, replay, resume, uri } = asked
  const overStdio = uri === "-"
  if (overStdio && Option.isSome(qmp)) {
    return yield* usage("- is for a QEMU that has begun to listen: leave out --qmp")
  }
  const to = overStdio ? "-" : (yield* Addresses.resolveUri(uri)).uri
  const monitor = Option.isNone(qmp) ? undefined : yield* Addresses.resolveQmp(qmp.value)
  const RestoreMachine = yield* Effect.promise(() => import("../qemu/RestoreMachine.ts"))
  const TouchOrder = yield* Effect.promise(() => import("../qemu/TouchOrder.ts"))
  const given = yield* Output
  // Over stdin and stdout there is nothing but the stream: what is to be said goes to stderr.
  const emit: typeof given.emit = overStdio
    ? (object, human) => given.note(given.json ? JSON.stringify(object) : human ?? "")
    : given.emit
  const failed = fromQemu(false)
  const first = Option.isNone(replay) ? [] : yield* TouchOrder.read(replay.value).pipe(Effect.mapError(failed))
  // A recovery's handshake may not be broken off; until the first byte anything else may.
  const early = resume ? yield* Signals.take : undefined
  const restoring = yield* RestoreMachine.begin({
    image,
    to,
    ...(monitor !== undefined && { qmp: monitor }),
    background: !nobg,
    maxBandwidth: Option.getOrUndefined(maxBandwidth)?.bytesPerSecond,
    resume,
    preempt,
    first,
    record: Option.isSome(record)
  }).pipe(Effect.mapError(failed))
  const signals = early ?? (yield* Signals.take)
  yield* Effect.forkScoped(Effect.andThen(
    restoring.loaded,
    emit({ event: "loaded" }, overStdio ? undefined : "the guest runs; its memory follows")
  ))
  yield* Effect.forkScoped(watch(restoring))
  const recording = Option.isNone(record) ? Effect.void : Effect.suspend(() => restoring.touched.write(record.value))
  const finishing = yield* Effect.forkScoped(restoring.finished.pipe(Effect.mapError(failed)))
  const report = yield* Effect.raceFirst(Fiber.join(finishing), obey(restoring, signals)).pipe(
    Effect.onExit(() => recording.pipe(Effect.ignore))
  )
  yield* emit({ event: "completed", report }, describe(report))
}, Effect.scoped)
