/** An embedder's own test: real protocol, real actors, no kernel, no network, and half an hour in no time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Guest, receive } from "postcopy"
import * as Testing from "postcopy/testing"
import { evacuate } from "./Evacuation.ts"

const pages = 64
const world = Testing.layer({ blocks: [{ idstr: "ram", length: pages * 4096 }], latencyMillis: 2 })

describe("evacuating a host", () => {
  it.effect("waits for a destination that comes up later, and the guest arrives whole", () =>
    Effect.gen(function*() {
      const guest = yield* Guest.run("the guest of the double")
      yield* guest.call({ write: 7, byte: 99 })
      const leaving = yield* Effect.forkChild(evacuate(guest, ["tcp:first:1", "tcp:second:1"]))

      // Nobody listens for two rounds; the guest answers as if nothing had happened.
      yield* TestClock.adjust("45 seconds")
      assert.isUndefined(leaving.pollUnsafe())
      assert.strictEqual(yield* guest.call({ read: 7 }), 99)

      const arriving = yield* Effect.forkScoped(receive({ guest: "the same", from: "tcp:second:1" }))
      yield* TestClock.adjust("30 seconds")
      const there = yield* Fiber.join(arriving)
      const report = yield* Fiber.join(leaving)
      assert.strictEqual(report.state, "completed")
      assert.strictEqual(report.pages.onDemand + report.pages.background, pages)

      // Each read is a page fault where the page is not there yet.
      assert.strictEqual(yield* there.guest.call({ read: 7 }), 99)
      assert.strictEqual(yield* there.guest.call({ read: 63 }), 63)
      assert.strictEqual((yield* there.report).state, "completed")
    }).pipe(Effect.provide(world)))

  it.effect("gives up when the guest may be elsewhere: trying again could make two of it", () =>
    Effect.gen(function*() {
      const guest = yield* Guest.run("the guest of the double")
      yield* Effect.forkScoped(Effect.scoped(receive({ guest: "the same", from: "tcp:first:1" })))
      const leaving = yield* Effect.forkChild(Effect.flip(evacuate(guest, ["tcp:first:1"])), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      const error = yield* Fiber.join(leaving)
      assert.notStrictEqual(error.guest, "source")
      assert.strictEqual((yield* guest.status).state, "failed")
    }).pipe(Effect.provide(world)))
})
