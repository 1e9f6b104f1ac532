/**
 * A guest in this process as its owner sees it: state, calls, pause and resume, and the migration it takes part in.
 * `Guest.run` and `receive` give one; `migrate` takes one. It keeps the promise of one owner at a time: once latched,
 * it never runs its guest again.
 */
import type * as Deferred from "effect/Deferred"
import type * as Effect from "effect/Effect"
import type { GuestError } from "./guests/GuestError.ts"
import type { MigrationError } from "./MigrationError.ts"
import type { Observation } from "./Observation.ts"
import type { Status } from "./Report.ts"

export interface GuestHandle {
  /** Never waits for the guest. At a destination one short question to the umem daemon. */
  readonly status: Effect.Effect<Status>
  /**
   * Calls the guest's `call` handler. Waits while the guest is paused or has not arrived; fails with `Refused` once it
   * has moved or is parked or lost, and with a `GuestError` of phase "call" when the handler threw.
   */
  readonly call: (request: unknown) => Effect.Effect<unknown, GuestError | MigrationError>
  /** Stops the guest between two slices. Refused while a migration is under way. */
  readonly pause: Effect.Effect<void, GuestError | MigrationError>
  /** Lets a paused guest run on. Refused after the latch. */
  readonly resume: Effect.Effect<void, GuestError | MigrationError>
  /** Cancels a migration before its switchover, waits until the guest runs again; refused after it, or when there is none. */
  readonly cancel: Effect.Effect<void, MigrationError>
  /** Bytes per second, `undefined` = unlimited. Refused when no migration is under way. */
  readonly setMaxBandwidth: (bytesPerSecond: number | undefined) => Effect.Effect<void, MigrationError>
  /** Whether pages are sent that nobody asked for. Refused when no migration is under way. */
  readonly setBackground: (on: boolean) => Effect.Effect<void, MigrationError>
  /** Everything there is to show, with a map of the memory in at most `cells` runs (0: without). Never waits. */
  readonly observe: (cells: number) => Effect.Effect<Observation>
  /**
   * Completes with the error that ended this guest: its code threw, or it is parked for ever (a destination whose
   * source or daemon is gone). Never completes otherwise.
   */
  readonly lost: Deferred.Deferred<never, GuestError | MigrationError>
  /** True while pages of an outgoing migration are unsent or unconfirmed: its process must live until then. */
  readonly owesPages: Effect.Effect<boolean>
}
