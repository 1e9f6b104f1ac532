/**
 * The stream of queries that goes on during the demo, to whichever side has the guest: the source until it refuses
 * because the guest has moved, the destination from then on. A query that is refused is asked again over there, so the
 * longest time a query took is what a client of the guest notices of the whole migration.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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
  /** Milliseconds from the first asking to the answer. */
  longestMs: number
}

/** Asks `request` of one side, as JSON. */
export const ask = ({ client }: Side, request: unknown) =>
  client.ask((guest) => guest.Call({ request: JSON.stringify(request) })).pipe(
    Effect.map((answer) => JSON.parse(answer) as Readonly<Record<string, unknown>>)
  )

export const askOf = (side: Side) => (request: unknown) => Effect.mapError(ask(side, request), from)

/** A query now and then, not as many as possible: the guest has work of its own. */
const PAUSE = "2 millis"

export interface Traffic {
  readonly tally: Readonly<Tally>
  /** Fails with the query that nobody answered. */
  readonly failed: Effect.Effect<never, Failure>
  readonly stop: Effect.Effect<void>
}

export const start = Effect.fnUntraced(
  function*(source: Side, destination: Side, query: unknown): Effect.fn.Return<Traffic, never, Scope.Scope> {
    const tally: Tally = { source: 0, destination: 0, longestMs: 0 }
    let side = source
    const once = Effect.gen(function*() {
      const begun = performance.now()
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
      tally.longestMs = Math.max(tally.longestMs, performance.now() - begun)
      yield* Effect.sleep(PAUSE)
    })
    const fiber = yield* Effect.forkScoped(Effect.forever(once))
    return { tally, failed: Fiber.join(fiber), stop: Fiber.interrupt(fiber) }
  }
)
