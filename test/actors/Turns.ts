/**
 * Turns of the event loop instead of time. A test that waits for something says what it waits for, and is told when it
 * does not come; one that waits for nothing to happen says how many turns of nothing it takes for proof.
 */
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"

/** Turns after which nothing more comes: a page's way through a link takes about ten. */
const QUIET_TURNS = 200
/** Turns after which what is waited for does not come any more. */
const MANY_TURNS = 20_000

/** Lets everything happen that happens without time passing. */
export const settle = Effect.gen(function*() {
  for (let i = 0; i < QUIET_TURNS; i++) yield* Effect.yieldNow
})

/** Waits without time passing until `holds` is true; dies with `what` when it never is. */
export const until = (what: string, holds: () => boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 0; i < MANY_TURNS; i++) {
      if (holds()) return
      yield* Effect.yieldNow
    }
    return yield* Effect.die(new Error(`this never came to be: ${what}`))
  })

/** Passes virtual time, a millisecond at a time with turns between, until a fiber is done or `millis` are over. */
export const passing = <A, E>(fiber: Fiber.Fiber<A, E>, millis = 1_000): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 0; i < millis; i++) {
      for (let turn = 0; turn < 20; turn++) {
        if (fiber.pollUnsafe() !== undefined) return
        yield* Effect.yieldNow
      }
      yield* TestClock.adjust(1)
    }
    yield* settle
    if (fiber.pollUnsafe() === undefined) return yield* Effect.die(new Error(`not done within ${millis} virtual ms`))
  })

/** What a fiber ended with; dies when it does not end of its own accord. */
export const ended = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<A, E> =>
  Effect.andThen(passing(fiber), Fiber.join(fiber))
