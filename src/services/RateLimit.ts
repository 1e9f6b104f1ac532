/**
 * The bandwidth limit of a source: a budget for each tick of 100 ms. Background pages stop when it is spent; pages asked
 * for are charged to it and never wait for it. Without a limit there is no tick. It also says whether there are background pages at all.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"

/** Milliseconds of a tick. */
export const TICK_MILLIS = 100

export interface RateLimit {
  /** Whether the budget allows more data that nobody asked for now. */
  readonly open: () => boolean
  /** Charges bytes that were sent, whatever they were. */
  readonly charge: (bytes: number) => void
  /** Bytes a second; `undefined` = unlimited. Takes effect at once. */
  readonly set: (bytesPerSecond: number | undefined) => void
  readonly get: () => number | undefined
  /** Whether background pages are sent at all, limit or not. Takes effect at once. */
  readonly setBackground: (on: boolean) => void
  readonly background: () => boolean
  /** Refills the budget each tick and calls `onRefill`, for as long as a limit is set; waits while none is. */
  readonly ticks: (onRefill: () => void) => Effect.Effect<never>
}

export const make = (bytesPerSecond: number | undefined): RateLimit => {
  let limit = bytesPerSecond
  let sent = 0
  let background = true
  const limited = Latch.makeUnsafe(limit !== undefined)
  let onChange = () => {}
  return {
    // "Sent more than the budget" stops, so one chunk of overshoot a tick is normal.
    open: () => limit === undefined || sent <= (limit * TICK_MILLIS) / 1000 && limit > 0,
    charge: (bytes) => {
      sent += bytes
    },
    set: (next) => {
      limit = next
      if (limit === undefined) limited.closeUnsafe()
      else limited.openUnsafe()
      onChange()
    },
    get: () => limit,
    setBackground: (on) => {
      background = on
      onChange()
    },
    background: () => background,
    ticks: (onRefill) => {
      onChange = onRefill
      return Effect.gen(function*() {
        while (true) {
          yield* limited.await
          yield* Effect.sleep(TICK_MILLIS)
          sent = 0
          onRefill()
        }
      })
    }
  }
}
