/**
 * The life of a process that holds a guest: it answers its control socket and stays until it is told to quit, gets a
 * signal, or loses the guest. It does not go while it owes pages to a destination, where the guest runs already: then it
 * waits until they were fetched, and only a second signal ends it, at the guest's cost.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { GuestHandle } from "../GuestHandle.ts"
import type { GuestError } from "../guests/GuestError.ts"
import type { MigrationError } from "../MigrationError.ts"
import type { Report } from "../Report.ts"
import * as ControlServer from "./ControlServer.ts"
import { Failure, from, silent, withCode } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Reporting from "./Reporting.ts"
import * as Signals from "./Signals.ts"

/** Why the process should end. */
export type End = { readonly _tag: "Quit" } | { readonly _tag: "Signal"; readonly signal: Signals.Signal }

export interface GuestProcess {
  /** The first wish to end. A guest that is lost is a failure. */
  readonly ended: Effect.Effect<End, Failure>
  /** Goes by the wish, once nothing is owed any more; fails with the exit code where that is not 0. */
  readonly leave: (end: End) => Effect.Effect<void, Failure>
}

/** How often is looked whether the last page is gone: nobody waits for the answer to the millisecond. */
const OWING_INTERVAL = "50 millis"

const lostPages = new Failure({
  tag: "GuestLost",
  message:
    "ended by a second signal: pages that the destination had not fetched are lost, and the guest with them; start it anew",
  code: 70
})

/** Ends the process as soon as whoever started it is gone: its end of the pipe at our stdin is closed then. */
export const leash = (): void => {
  process.stdin.resume().on("end", () => process.exit(70)).on("error", () => process.exit(70))
}

/** Takes the control socket's path, before anything costly is done. */
export const claim = Effect.fnUntraced(
  function*(control: string | undefined): Effect.fn.Return<ControlServer.Listening | undefined, Failure, Scope.Scope> {
    if (control !== undefined) return yield* ControlServer.listen(control)
  }
)

export const open = Effect.fnUntraced(function*(options: {
  readonly guest: GuestHandle
  readonly control: ControlServer.Listening | undefined
  readonly migrate: ControlServer.ServeOptions["migrate"]
  /** Which losses end the process; a parked guest may be kept for `status`. */
  readonly endsBy: (error: GuestError | MigrationError) => boolean
}): Effect.fn.Return<GuestProcess, never, Scope.Scope> {
  const { control, endsBy, guest, migrate } = options
  const output = yield* Output
  const signals = yield* Signals.take
  const quit = yield* Deferred.make<End>()
  const onMigrated = (exit: Exit.Exit<Report, MigrationError>) =>
    Exit.match(exit, {
      onSuccess: (report) => output.note(Reporting.summary(report)),
      // Whoever asked for it may be gone by now.
      onFailure: (cause) => {
        const error = Cause.findErrorOption(cause)
        return Option.isSome(error) ? output.note(`the migration failed: ${error.value.message}`) : Effect.void
      }
    })
  if (control !== undefined) {
    const onQuit = Effect.asVoid(Deferred.succeed(quit, { _tag: "Quit" }))
    yield* control.serve({ guest, migrate, onMigrated, onQuit })
  }

  const lost = Deferred.await(guest.lost).pipe(
    Effect.catch((error) => endsBy(error) ? Effect.fail(withCode(from(error), 70)) : Effect.never)
  )
  const signalled = Effect.map(Queue.take(signals), (signal): End => ({ _tag: "Signal", signal }))
  const settled = guest.owesPages.pipe(
    Effect.repeat({ until: (owes) => !owes, schedule: Schedule.spaced(OWING_INTERVAL) }),
    Effect.asVoid
  )
  const killed = Queue.take(signals).pipe(
    Effect.andThen(output.fail(lostPages)),
    // Not by way of the scope: what it would wait for is what is being given up.
    Effect.andThen(Effect.sync((): never => process.exit(lostPages.code)))
  )

  const leave = Effect.fnUntraced(function*(end: End) {
    if (yield* guest.owesPages) {
      const { remaining } = yield* guest.status
      yield* output.note(
        `${remaining} pages are still owed to the destination: waiting until they are fetched; a second signal ends this process and loses the guest`
      )
      yield* Effect.raceFirst(settled, killed)
    }
    const { state } = yield* guest.status
    if (state === "failed") return yield* silent(70)
    // A process whose guest has moved away has nothing to interrupt.
    if (end._tag === "Signal" && end.signal === "SIGINT" && state !== "completed") {
      return yield* silent(Signals.INTERRUPTED)
    }
  })

  return { ended: Effect.raceAllFirst([Deferred.await(quit), signalled, lost]), leave }
})
