/**
 * `--otlp URL` and `--metrics PORT` of processes that hold a guest. Without them nothing of it is loaded; with them the
 * guest is looked at once a second, and once more whenever somebody scrapes and at the end.
 */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import type { GuestHandle } from "../GuestHandle.ts"
import { type Failure, usage } from "./Failure.ts"
import { Output } from "./Output.ts"
import { version } from "./Version.ts"
import { parseWeb, type WebAddress } from "./Viewing.ts"

export const otlp = Flag.String("otlp").pipe(
  Flag.withMetavar("URL"),
  Flag.filterMap(
    (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) ? Option.some(text) : Option.none(),
    () => "the http(s) URL of a collector, such as http://127.0.0.1:4318"
  ),
  Flag.withDescription("Export traces, metrics and logs to this OTLP collector (HTTP)"),
  Flag.optional
)

export const metrics = Flag.String("metrics").pipe(
  Flag.withMetavar("PORT"),
  Flag.filterMap(parseWeb, () => "a port, or HOST:PORT to listen elsewhere than on the loopback interface"),
  Flag.withDescription("Serve metrics for Prometheus at /metrics of this port of the loopback interface"),
  Flag.optional
)

export interface Flags {
  readonly otlp: Option.Option<string>
  readonly metrics: Option.Option<WebAddress>
}

const INTERVAL = "1 second"

/** Of a collector, which is asked for what happened; a terminal shows what `--log-level` says, and no more. */
const EXPORTED_LEVEL = "Debug"

/** The same logger, for what is at least of this level. */
const from = (least: LogLevel.LogLevel) => (logger: Logger.Logger<unknown, unknown>): Logger.Logger<unknown, unknown> =>
  Logger.make((options) => LogLevel.isLessThan(options.logLevel, least) ? undefined : logger.log(options))

/** Around the whole of a command: what is still to be exported goes out when it ends. */
export const exported = (flags: Flags) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  if (Option.isNone(flags.otlp)) return effect
  const url = flags.otlp.value
  return Effect.gen(function*() {
    const { otlp } = yield* Effect.promise(() => import("../telemetry/Exporters.ts"))
    const shown = yield* References.MinimumLogLevel
    const loggers = yield* Logger.CurrentLoggers
    const least = LogLevel.isLessThan(shown, EXPORTED_LEVEL) ? shown : EXPORTED_LEVEL
    return yield* effect.pipe(
      Effect.provideService(References.MinimumLogLevel, least),
      Effect.provide(otlp(url, version)),
      Effect.provideService(Logger.CurrentLoggers, new Set([...loggers].map(from(shown))))
    )
  })
}

/** Counts what this guest does, for as long as the scope is open. */
export const follow = Effect.fnUntraced(
  function*(flags: Flags, guest: GuestHandle): Effect.fn.Return<void, Failure, Scope.Scope> {
    if (Option.isNone(flags.otlp) && Option.isNone(flags.metrics)) return
    const output = yield* Output
    const Metrics = yield* Effect.promise(() => import("../telemetry/Metrics.ts"))
    const count = Metrics.make()
    const refresh = Effect.flatMap(guest.observe(0), count)
    yield* Effect.addFinalizer(() => refresh)
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(refresh, Effect.sleep(INTERVAL))))
    if (Option.isNone(flags.metrics)) return
    const address = flags.metrics.value
    const { prometheus } = yield* Effect.promise(() => import("../telemetry/Exporters.ts"))
    const { url } = yield* prometheus({ ...address, refresh }).pipe(
      Effect.mapError(({ code }) =>
        usage(`metrics cannot be served at ${address.host}:${address.port} (${code}); give --metrics another port`)
      )
    )
    yield* output.emit({ event: "metrics", url }, `metrics: ${url}`)
  }
)
