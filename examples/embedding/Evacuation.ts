/**
 * A piece of somebody's own program: empties a host of its guests, one after the other, trying each destination in turn
 * and waiting between rounds. Its test, beside this file, runs whole migrations under TestClock.
 */
import { Effect, Schedule } from "effect"
import { type GuestHandle, migrate, type MigrationError, type Report } from "postcopy"

/** The guest still runs here after these, so that another destination can be tried. */
const mayTryAgain = (error: MigrationError) => error.guest === "source"

export const evacuate = (
  guest: GuestHandle,
  destinations: ReadonlyArray<string>
): Effect.Effect<Report, MigrationError> =>
  Effect.firstSuccessOf(destinations.map((to) => migrate({ guest, to }))).pipe(
    Effect.retry({ while: mayTryAgain, schedule: Schedule.spaced("30 seconds"), times: 10 })
  )
