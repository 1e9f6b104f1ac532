/**
 * Looks at the sides of a migration again and again, never more often than its interval whatever happens there, keeps the
 * curve and the last picture, and gives every viewer the newest picture: one that is slow misses some, and holds up nobody.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { empty, type Ending, type Picture, type Sample, sampleOf, type Sides } from "./Picture.ts"

/** Milliseconds between two looks for eyes: ten pictures a second. */
export const INTERVAL = 100

/** Points of the curve; when there are more every other one is dropped, and half as many are kept from then on. */
const MOST_SAMPLES = 600

export interface Recorder {
  /** Looks from now on, until the scope ends or a look fails. `last` is the look for the picture that stays. */
  readonly attach: (
    look: Effect.Effect<Sides, unknown>,
    last?: Effect.Effect<Sides, unknown>
  ) => Effect.Effect<void, never, Scope.Scope>
  readonly latest: () => Picture
  readonly samples: () => ReadonlyArray<Sample>
  /** The newest picture and all that follow, up to the one that has ended. */
  readonly pictures: Stream.Stream<Picture>
  /** A last look, and the picture that stays. What is given first is kept. */
  readonly finish: (ending: Ending) => Effect.Effect<void>
  readonly viewers: () => number
  /** Completes when there is a viewer, or was one. */
  readonly seen: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(interval: number = INTERVAL): Effect.fn.Return<Recorder> {
  const news = yield* PubSub.sliding<Picture>(1)
  let picture = empty
  let samples: Array<Sample> = []
  let keepEvery = 1
  let looks = 0
  let viewers = 0
  const viewed = Deferred.makeUnsafe<void>()
  let last: Effect.Effect<Sides, unknown> = Effect.succeed({})

  const note = (sides: Sides): Sample | undefined => {
    const sample = sampleOf(sides)
    if (sample === undefined || looks++ % keepEvery !== 0) return sample
    samples.push(sample)
    if (samples.length > MOST_SAMPLES) {
      samples = samples.filter((_, i) => i % 2 === 0)
      keepEvery *= 2
    }
    return sample
  }

  const publish = (sides: Sides, ended: boolean, ending: Ending) =>
    Effect.flatMap(Clock.monotonicTimeNanos, (nanos) => {
      const sample = note(sides)
      picture = {
        ...picture,
        takenAt: Number(nanos) / 1e6,
        ...ending,
        reports: { ...picture.reports, ...ending.reports },
        sides,
        ended,
        ...(sample === undefined ? {} : { sample })
      }
      return PubSub.publish(news, picture)
    })

  return {
    attach: (look, lastLook = look) =>
      Effect.suspend(() => {
        last = lastLook
        const once = Effect.flatMap(look, (sides) => picture.ended ? Effect.never : publish(sides, false, {}))
        return Effect.asVoid(
          Effect.forkScoped(Effect.ignoreCause(Effect.forever(Effect.andThen(once, Effect.sleep(interval)))))
        )
      }),
    latest: () => picture,
    samples: () => samples,
    pictures: Stream.unwrap(Effect.gen(function*() {
      viewers++
      Deferred.doneUnsafe(viewed, Exit.void)
      yield* Effect.addFinalizer(() => Effect.sync(() => void viewers--))
      const subscription = yield* PubSub.subscribe(news)
      return Stream.concat(Stream.succeed(picture), Stream.fromSubscription(subscription)).pipe(
        Stream.takeUntil(({ ended }) => ended)
      )
    })),
    finish: (ending) =>
      Effect.suspend(() => {
        if (picture.ended) return Effect.void
        return Effect.asVoid(
          Effect.flatMap(Effect.option(last), (sides) =>
            publish(Option.getOrElse(sides, () => picture.sides), true, ending))
        )
      }),
    viewers: () => viewers,
    seen: Deferred.await(viewed)
  }
})
