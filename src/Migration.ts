/**
 * The library's entry: `migrate` sends a running guest, `receive` takes one, `run` starts one. Nothing has to be
 * provided; every service underneath can be replaced by a layer.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import type { Descriptor } from "userfaultfd-napi"
import type { GuestHandle } from "./GuestHandle.ts"
import type { GuestError } from "./guests/GuestError.ts"
import { GuestFailed, InvalidArgument, MigrationError } from "./MigrationError.ts"
import * as ReceiveGuest from "./ReceiveGuest.ts"
import type { Report } from "./Report.ts"
import { RunningGuest } from "./RunningGuest.ts"
import * as SendGuest from "./SendGuest.ts"
import { GuestThreads } from "./services/GuestThreads.ts"
import * as Traces from "./telemetry/Traces.ts"

export interface GuestOptions {
  readonly memoryMiB?: number | undefined
}

/** Starts a fresh guest in this process. Closing the scope ends it. */
export const run: (
  module: URL | string,
  options?: GuestOptions
) => Effect.Effect<GuestHandle, GuestError | MigrationError, Scope.Scope> = Effect.fnUntraced(
  function*(module, options) {
    const vcpu = yield* (yield* GuestThreads).load(module, { memoryMiB: options?.memoryMiB })
    const clock = yield* Clock.Clock
    const guest = new RunningGuest(vcpu, "source", () => Number(clock.currentTimeNanosUnsafe()) / 1e6)
    yield* Effect.forkScoped(Effect.catch(vcpu.crashed, (error) =>
      Effect.sync(() =>
        guest.crashed(
          new MigrationError({
            side: "source",
            guest: "none",
            reason: new GuestFailed({ phase: error.phase, detail: `the guest failed: ${error.message}` })
          })
        )
      )))
    yield* vcpu.start
    return guest
  }
)

export interface MigrateOptions {
  readonly guest: GuestHandle
  /** `tcp:HOST:PORT`, `unix:PATH`, `fd:N`, or a connected stream socket that the migration owns from then on. */
  readonly to: string | Descriptor
  /** Send pages nobody asked for. Default true. */
  readonly background?: boolean | undefined
  /** Bytes per second; default unlimited. */
  readonly maxBandwidth?: number | undefined
  /** Names the migration in logs, traces and reports; default a new UUID. Give both sides the same one. */
  readonly id?: string | undefined
  /** Target pages sent around each page that is asked for. Default none. */
  readonly prefault?: { readonly forward: number; readonly backward: number } | undefined
  /**
   * Microseconds, 0 to 1000: how long to wait for the next request without sleeping, after one was served. It makes faults
   * shorter, yields the CPU to whoever wants it, and backs off. 0: never. Default 50.
   */
  readonly busyPollMicros?: number | undefined
}

/** Sends a running guest. Interruptible until the latch, then uninterruptible until EOC or failure. */
export const migrate = (options: MigrateOptions): Effect.Effect<Report, MigrationError> => {
  const { background = true, busyPollMicros, guest, id = randomUUID(), maxBandwidth, prefault, to } = options
  if (!(guest instanceof RunningGuest)) {
    const reason = new InvalidArgument({ detail: "the guest is not one that `run` or `receive` gave" })
    return Effect.fail(new MigrationError({ side: "source", guest: "source", reason }))
  }
  return SendGuest.send({ guest, to, background, maxBandwidth, id, prefault, busyPollMicros }).pipe(
    Traces.migration({
      id,
      role: "source",
      peer: typeof to === "string" ? to : "a descriptor",
      timeline: guest.timeline
    })
  )
}

export interface ReceiveOptions {
  readonly guest: URL | string
  readonly from: string
  readonly options?: GuestOptions | undefined
  /** Bit 0: ask the guest's side to take faults (TRIGGER_PAGE_FAULT) and end by pages. Other bits are refused. */
  readonly flags?: number | undefined
  /** Names the migration in logs, traces and reports; default a new UUID. Give both sides the same one. */
  readonly id?: string | undefined
  /** Of the umem daemon, as of {@link MigrateOptions}. */
  readonly busyPollMicros?: number | undefined
}

/** An incoming migration that is being waited for. */
export interface Incoming {
  /** The bound address as a URI: the port is filled in. */
  readonly uri: string
  readonly guest: GuestHandle
  /** Completes when the guest resumed here. */
  readonly running: Effect.Effect<void, MigrationError>
  /** Completes when every page is here and both ends said goodbye. */
  readonly report: Effect.Effect<Report, MigrationError>
  /** The report as it stands, also of a failed migration. */
  readonly reportNow: Effect.Effect<Report>
}

/** Loads the guest, starts the umem daemon, listens, and returns; takes one connection. Closing the scope ends all of it. */
export const listen = (options: ReceiveOptions): Effect.Effect<Incoming, MigrationError, Scope.Scope> =>
  ReceiveGuest.listen({
    guest: options.guest,
    from: options.from,
    memoryMiB: options.options?.memoryMiB,
    flags: options.flags ?? 0,
    id: options.id,
    busyPollMicros: options.busyPollMicros
  })

/** {@link listen}, then waits until the guest runs here; `report` completes when all of its memory is here. */
export const receive: (
  options: ReceiveOptions
) => Effect.Effect<
  { readonly guest: GuestHandle; readonly report: Effect.Effect<Report, MigrationError> },
  MigrationError,
  Scope.Scope
> = Effect.fnUntraced(function*(options) {
  const { guest, report, running } = yield* listen(options)
  yield* running
  return { guest, report }
})
