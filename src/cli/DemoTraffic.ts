/**
 * The stream of queries that goes on during the demo, to whichever side has the guest: the source until it refuses
 * because the guest has moved, the destination from then on. A query that is refused is asked again over there; how long
 * that one takes is what a client of the guest notices of the switchover.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { ControlClient } from "./ControlClient.ts"
import { type Failure, from } from "./Failure.ts"

export interface Side {
  readonly name: "source" | "destination"
  readonly client: ControlClient
}

export interface Tally {
  /** Answers given by either side. */
  source: number
  destination: number
  /** How long the query took that began at the source and was answered at the destination; milliseconds. */
  switchoverMs: number
}

/** Asks `request` of one side, as JSON. */
export const ask = ({ client }: Side, request: unknown) =>
  client.ask((guest) => guest.Call({ request: JSON.stringify(request) })).pipe(
    Effect.map((answer) => JSON.parse(answer) as Readonly<Record<string, unknown>>)
  )

export const askOf = (side: Side) => (request: unknown) => Effect.mapError(ask(side, request), from)

/** A query now and then, not as many as possible: the guest has work of its own. */
const PAUSE = "5 millis"

export interface Traffic {
  readonly tally: Readonly<Tally>
  /** Waits until so many were answered there. */
  readonly answeredAtDestination: (count: number) => Effect.Effect<void>
  /** Fails with the query that nobody answered. */
  readonly failed: Effect.Effect<never, Failure>
  readonly stop: Effect.Effect<void>
}

export const start = Effect.fnUntraced(
  function*(source: Side, destination: Side, query: unknown): Effect.fn.Return<Traffic, never, Scope.Scope> {
    const tally: Tally = { source: 0, destination: 0, switchoverMs: 0 }
    let side = source
    const once = Effect.gen(function*() {
      const begun = performance.now()
      const asked = side
      yield* ask(side, query).pipe(
        Effect.catchIf(
          (error) => side === source && error._tag === "MigrationError",
          () => {
            side = destination
            return ask(side, query)
          }
        ),
        Effect.mapError(from)
      )
      tally[side.name]++
      if (asked !== side) tally.switchoverMs = performance.now() - begun
      yield* Effect.sleep(PAUSE)
    })
    const fiber = yield* Effect.forkScoped(Effect.forever(once))
    const answeredAtDestination = (count: number) =>
      Effect.sync(() => tally.destination >= count).pipe(
        Effect.repeat({ until: (enough) => enough, schedule: Schedule.spaced(PAUSE) }),
        Effect.asVoid
      )
    return { tally, answeredAtDestination, failed: Fiber.join(fiber), stop: Fiber.interrupt(fiber) }
  }
)
