/**
 * The failure cell of one migration. Each actor is spawned into the migration's scope; the first failure among them is
 * the migration's failure. Teardown is the scope's: strictly in reverse order of acquisition.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"

export interface Supervisor<in out E> {
  /** Runs an actor until the scope ends. Its failure, but not its interruption, ends the migration. */
  readonly spawn: <A, R>(
    name: string,
    body: Effect.Effect<A, E, R>
  ) => Effect.Effect<Fiber.Fiber<A, E>, never, R | Scope.Scope>
  /** Fails with the first failure, never completes otherwise. */
  readonly failure: Effect.Effect<never, E>
}

export const make = <E>(): Effect.Effect<Supervisor<E>> =>
  Effect.sync(() => {
    const failed = Deferred.makeUnsafe<never, E>()
    const report = <A>(exit: Exit.Exit<A, E>) =>
      Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
        ? Deferred.failCause(failed, exit.cause)
        : Effect.void
    return {
      failure: Deferred.await(failed),
      spawn: (name, body) =>
        body.pipe(
          Effect.onExit(report),
          Effect.annotateLogs("actor", name),
          Effect.forkScoped({ startImmediately: true })
        )
    }
  })
