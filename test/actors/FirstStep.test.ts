/** The report of a guest that is here whole before it has done anything. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Guest, migrate, receive } from "../../src/index.ts"
import { GuestThreads } from "../../src/services/GuestThreads.ts"
import * as Testing from "../../src/testing.ts"
import { PAGE } from "./Contents.ts"

const world = Testing.layer({ blocks: [{ idstr: "ram", length: 4 * PAGE }] })

/** The world's guest, except that its first step at either side is when `first` says. */
const stepping = (first: Deferred.Deferred<bigint>) =>
  Layer.effect(
    GuestThreads,
    Effect.map(GuestThreads, ({ load }) => ({
      load: (...about: Parameters<typeof load>) =>
        Effect.map(load(...about), (vcpu) => ({ ...vcpu, firstStepNanos: Deferred.await(first) }))
    }))
  ).pipe(Layer.provideMerge(world))

const arrive = Effect.gen(function*() {
  const guest = yield* Guest.run("the guest of the double")
  const arriving = yield* Effect.forkScoped(receive({ guest: "the same", from: "tcp:there:1" }))
  yield* TestClock.adjust(0)
  const leaving = yield* Effect.forkChild(migrate({ guest, to: "tcp:there:1" }))
  yield* TestClock.adjust("10 seconds")
  yield* Fiber.join(leaving)
  return yield* Effect.forkChild((yield* Fiber.join(arriving)).report, { startImmediately: true })
})

describe("the report of a destination", () => {
  it.effect("has the guest's first step, though the last page came before it", () => {
    const first = Deferred.makeUnsafe<bigint>()
    return Effect.gen(function*() {
      const report = yield* arrive
      yield* TestClock.adjust("99 millis")
      assert.isUndefined(report.pollUnsafe())
      yield* Deferred.succeed(first, 17n)
      assert.strictEqual((yield* Fiber.join(report)).guestStepNanos, "17")
    }).pipe(Effect.provide(stepping(first)))
  })

  it.effect("does not wait for ever for a guest that does nothing by itself", () =>
    Effect.gen(function*() {
      const report = yield* arrive
      yield* TestClock.adjust("100 millis")
      const { guestStepNanos, state } = yield* Fiber.join(report)
      assert.strictEqual(state, "completed")
      assert.isUndefined(guestStepNanos)
    }).pipe(Effect.provide(stepping(Deferred.makeUnsafe<bigint>()))))
})
