/**
 * `postcopy qemu relay`: stands between two QEMUs of which one migrates to the other, shows how it goes, and keeps an
 * image on the way. It changes nothing of what passes.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { RelayProgress } from "../qemu/RelayTap.ts"
import * as Addresses from "./Addresses.ts"
import { Output } from "./Output.ts"
import { fromQemu } from "./QemuFailure.ts"
import * as QemuReporting from "./QemuReporting.ts"

const PROGRESS_INTERVAL = "200 millis"

const uri = (name: string, description: string) => Argument.String(name).pipe(Argument.withDescription(description))

/** The latency that a part of the requests stays below: microseconds, null without requests. */
const percentile = (sorted: ReadonlyArray<number>, part: number): number | null =>
  sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!

const faults = ({ latencies, requests }: RelayProgress) => ({
  requests,
  p50Us: percentile(latencies, 0.5),
  p99Us: percentile(latencies, 0.99),
  maxUs: latencies.at(-1) ?? null
})

const describeFaults = (progress: RelayProgress): string => {
  const { maxUs, p50Us, p99Us, requests } = faults(progress)
  if (p50Us === null) return `${requests} page requests`
  return `${requests} page requests: p50 ${p50Us.toFixed(0)} µs, p99 ${p99Us!.toFixed(0)} µs, max ${
    maxUs!.toFixed(0)
  } µs`
}

export const relay = Command.make(
  "relay",
  {
    listen: uri("listen", "Where the source connects: tcp:HOST:PORT or unix:PATH"),
    connect: uri("connect", "Where the destination listens: tcp:HOST:PORT or unix:PATH"),
    tee: Flag.String("tee").pipe(
      Flag.withMetavar("IMAGE"),
      Flag.withDescription("Keep an image of what passes"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function*({ connect, listen, tee }) {
    const RelayMachine = yield* Effect.promise(() => import("../qemu/RelayMachine.ts"))
    const output = yield* Output
    const relaying = yield* RelayMachine.begin({
      listen: (yield* Addresses.resolveUri(listen)).uri,
      connect: (yield* Addresses.resolveUri(connect)).uri,
      tee: Option.getOrUndefined(tee)
    }).pipe(Effect.mapError(fromQemu(false)))
    yield* output.emit({ event: "listening", uri: relaying.uri }, `listening at ${relaying.uri}`)
    const watch = Effect.gen(function*() {
      if (output.progress === undefined) return yield* Effect.never
      while (true) {
        const now = relaying.progress()
        yield* output.progress(`${QemuReporting.progress(now.phase, now.received, now.total)}, ${describeFaults(now)}`)
        yield* Effect.sleep(PROGRESS_INTERVAL)
      }
    })
    yield* Effect.forkScoped(watch)
    const { bytes, connections, manifest, progress } = yield* relaying.finished.pipe(Effect.mapError(fromQemu(false)))
    yield* output.emit(
      {
        event: "completed",
        report: {
          role: "relay",
          state: "completed",
          dialect: "qemu",
          postcopy: progress.postcopy,
          pages: { total: progress.total },
          bytesOnWire: bytes,
          connections,
          faults: faults(progress),
          image: manifest === undefined ? null : QemuReporting.summary(manifest)
        }
      },
      [
        `relayed ${(bytes / 2 ** 20).toFixed(1)} MiB, ${progress.total} pages of guest memory, ${
          progress.postcopy ? "post-copy" : "precopy"
        }`,
        `  ${describeFaults(progress)}`,
        ...(manifest === undefined
          ? []
          : [`  kept ${Option.getOrElse(tee, () => "")}: ${QemuReporting.describeSize(manifest)}`])
      ].join("\n")
    )
  }, Effect.scoped)
).pipe(
  Command.withDescription("Stand between two QEMUs: show how a migration goes, and keep an image on the way"),
  Command.withExamples([
    {
      command: "postcopy qemu relay unix:here.sock unix:in.sock --tee snap",
      description: "The source migrates to unix:here.sock"
    }
  ])
)
