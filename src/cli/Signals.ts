/**
 * SIGINT and SIGTERM. As a rule the first one interrupts the command, whose finalizers then run, and a second one ends
 * the process at once. A process that holds a guest takes the signals over: it may owe pages to a destination, and then
 * ending is not its own decision.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"

export type Signal = "SIGINT" | "SIGTERM"

const names: ReadonlyArray<Signal> = ["SIGINT", "SIGTERM"]

/** Exit code of a command that was interrupted. */
export const INTERRUPTED = 130

// Process-wide, as signals are.
let owner: Queue.Enqueue<Signal> | undefined

/** From now on signals come to this queue, and to nobody else, until the scope closes. */
export const take: Effect.Effect<Queue.Dequeue<Signal>, never, Scope.Scope> = Effect.gen(function*() {
  const queue = yield* Queue.unbounded<Signal>()
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      owner = queue
    }),
    () =>
      Effect.sync(() => {
        owner = undefined
      })
  )
  return queue
})

/** Installs the rule for the whole process; returns what uninstalls it. */
export const install = (interrupt: () => void): () => void => {
  let interrupted = false
  const onSignal = (signal: Signal) => {
    if (owner !== undefined) {
      Queue.offerUnsafe(owner, signal)
    } else if (interrupted) {
      process.exit(INTERRUPTED)
    } else {
      interrupted = true
      interrupt()
    }
  }
  for (const name of names) process.on(name, onSignal)
  return () => {
    for (const name of names) process.off(name, onSignal)
  }
}
