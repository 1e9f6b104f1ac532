import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Picture } from "../../src/web/Picture.ts"
import * as Recorder from "../../src/web/Recorder.ts"
import { arrivedSoFar, observation } from "./Pictures.ts"

describe("the recorder", () => {
  it.effect("looks ten times a second, whatever happens there, and every viewer sees no more", () =>
    Effect.gen(function*() {
      let arrived = 0
      let looks = 0
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.sync(() => {
        looks++
        return arrivedSoFar(arrived)
      }))
      const seen: Array<Picture> = []
      yield* Effect.forkScoped(
        Stream.runForEach(recorder.pictures, (picture) => Effect.sync(() => void seen.push(picture)))
      )
      for (let millis = 0; millis < 1000; millis++) {
        arrived += 50
        yield* TestClock.adjust(1)
      }
      assert.isAtMost(looks, 11)
      assert.isAtLeast(seen.length, 10)
      assert.isAtMost(seen.length, 12)
      assert.strictEqual(recorder.samples().length, looks)
    }))

  it.effect("gives a viewer that comes late the newest picture at once", () =>
    Effect.gen(function*() {
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.succeed(arrivedSoFar(7)))
      yield* TestClock.adjust(10_000)
      const [first] = yield* Stream.runCollect(Stream.take(recorder.pictures, 1))
      assert.strictEqual(first?.sides.destination?.pages.background, 7)
      assert.strictEqual(recorder.viewers(), 0)
    }))

  it.effect("skips pictures for a slow viewer instead of keeping them", () =>
    Effect.gen(function*() {
      let arrived = 0
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.sync(() => arrivedSoFar(++arrived)))
      const seen: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(recorder.pictures, ({ sides }) =>
          Effect.andThen(
            Effect.sync(() => seen.push(sides.destination?.pages.background ?? 0)),
            Effect.sleep("2 seconds")
          ))
      )
      yield* TestClock.adjust(10_000)
      assert.isAtMost(seen.length, 6)
      assert.isAtLeast(seen.at(-1)!, arrived - 45)
    }))

  it.effect("ends with a last look and what came of it, and keeps that", () =>
    Effect.gen(function*() {
      let arrived = 1
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.sync(() => arrivedSoFar(arrived)), Effect.sync(() => arrivedSoFar(1000 + arrived)))
      const viewing = yield* Effect.forkScoped(Stream.runCollect(recorder.pictures), { startImmediately: true })
      yield* TestClock.adjust(100)
      yield* recorder.finish({ error: "the source went away" })
      yield* recorder.finish({ error: "something later" })
      const last = (yield* Fiber.join(viewing)).at(-1)
      assert.deepInclude(last, { ended: true, error: "the source went away" })
      assert.strictEqual(last?.sides.destination?.pages.background, 1001)
      arrived = 5
      yield* TestClock.adjust(1_000)
      assert.strictEqual(recorder.latest().sides.destination?.pages.background, 1001)
    }))

  it.effect("ends with the last picture it has when nobody answers any more", () =>
    Effect.gen(function*() {
      let gone = false
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.suspend(() => gone ? Effect.fail("gone") : Effect.succeed(arrivedSoFar(3))))
      yield* TestClock.adjust(100)
      gone = true
      yield* TestClock.adjust(1_000)
      yield* recorder.finish({})
      assert.strictEqual(recorder.latest().sides.destination?.pages.background, 3)
    }))

  it.effect("keeps a bounded curve of a migration of any length, from its beginning to its end", () =>
    Effect.gen(function*() {
      let arrived = 0
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.sync(() => arrivedSoFar(++arrived)))
      yield* TestClock.adjust("10 minutes")
      const samples = recorder.samples()
      assert.isAtMost(samples.length, 600)
      assert.isAtLeast(samples.length, 300)
      assert.strictEqual(samples[0]!.background, 1)
      assert.isAbove(samples.at(-1)!.background, arrived - 32)
    }))

  it.effect("knows when the first viewer comes", () =>
    Effect.gen(function*() {
      const recorder = yield* Recorder.make()
      yield* recorder.attach(Effect.succeed({ source: observation() }))
      const seen = yield* Effect.forkScoped(recorder.seen, { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(seen.pollUnsafe())
      yield* Stream.runCollect(Stream.take(recorder.pictures, 1))
      yield* Fiber.join(seen)
    }))
})
