/** A migration that is taken back twice: by its caller's interruption, say, and by a command that follows it. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Guest, migrate } from "../../src/index.ts"
import { GuestThreads } from "../../src/services/GuestThreads.ts"
import { Links } from "../../src/services/Links.ts"
import * as Testing from "../../src/testing.ts"
import { PAGE } from "./Contents.ts"
import { settle } from "./Turns.ts"

/** The double's guest, which runs on only when it may. */
const world = (mayRun: Deferred.Deferred<void>) =>
  Layer.effect(
    GuestThreads,
    Effect.map(GuestThreads, ({ load }) => ({
      load: (...about: Parameters<typeof load>) =>
        Effect.map(load(...about), (vcpu) => ({ ...vcpu, run: Effect.andThen(Deferred.await(mayRun), vcpu.run) }))
    }))
  ).pipe(Layer.provideMerge(Testing.layer({ blocks: [{ idstr: "ram", length: 4 * PAGE }] })))

describe("cancelling", () => {
  it.effect("once more while the guest is about to run on is the same: nobody is told that it has switched over", () => {
    const mayRun = Deferred.makeUnsafe<void>()
    return Effect.gen(function*() {
      const guest = yield* Guest.run("the guest of the double")
      // A peer that takes the connection and reads nothing: the source stays before its switchover.
      yield* (yield* Links).listen("tcp:deaf:1")
      const leaving = yield* Effect.forkChild(Effect.flip(migrate({ guest, to: "tcp:deaf:1" })))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* guest.status).state, "migrating")
      const first = yield* Effect.forkChild(guest.cancel, { startImmediately: true })
      yield* settle
      const second = yield* Effect.forkChild(guest.cancel, { startImmediately: true })
      yield* settle
      assert.isUndefined(second.pollUnsafe())
      yield* Deferred.succeed(mayRun, undefined)
      yield* Fiber.join(first)
      yield* Fiber.join(second)
      const { guest: where, reason } = yield* Fiber.join(leaving)
      assert.deepStrictEqual([where, reason._tag], ["source", "Cancelled"])
      assert.strictEqual((yield* guest.status).state, "running")
    }).pipe(Effect.provide(world(mayRun)))
  })
})
