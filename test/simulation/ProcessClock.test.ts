import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Random } from "./Random.ts"
import { Trace } from "./Trace.ts"
import { MILLI, type Process, World } from "./World.ts"

const make = () => {
  const world = new World(new Random(1, 2), new Trace(false))
  world.stepNanos = 1_000
  const heard: Array<string> = []
  const say = (text: string) => Effect.map(Clock.currentTimeMillis, (now) => void heard.push(`${text} ${now}`))
  const sleeper = (process: Process, ...sleeps: ReadonlyArray<number>) => {
    for (const millis of sleeps) {
      const effect = Effect.andThen(Effect.sleep(millis), say(`${process.name}${millis}`))
      process.start(effect, () => {})
    }
  }
  const run = (millis: number) => world.run(millis * MILLI, () => false)
  return { world, heard, say, sleeper, run, one: world.spawn("a"), two: world.spawn("b") }
}

describe("the clock of a simulated process", () => {
  it("wakes the sleepers of two processes when each is due, and equal ones in the order they came", () => {
    const { heard, one, run, sleeper, two } = make()
    sleeper(one, 30, 10.5, 20)
    sleeper(two, 15, 25)
    sleeper(one, 20)
    assert.strictEqual(run(1_000), "idle")
    assert.deepStrictEqual(heard, ["a10.5 10", "b15 15", "a20 20", "a20 20", "b25 25", "a30 30"])
  })

  it("makes a task of whoever it wakes", () => {
    const { heard, one, sleeper, world } = make()
    sleeper(one, 10)
    world.run(1_000 * MILLI, () => world.now >= 10 * MILLI)
    one.clock.catchUp(20)
    assert.deepStrictEqual(heard, [])
    assert.isTrue(one.main.ready())
  })

  it("stands still while its process is stopped, and then wakes whoever was due, in that order", () => {
    const { heard, one, run, sleeper, two, world } = make()
    sleeper(one, 20, 10, 60)
    sleeper(two, 30)
    world.at(5 * MILLI, undefined, () => one.stop())
    world.at(50 * MILLI, undefined, () => {
      assert.deepStrictEqual(heard, ["b30 30"])
      assert.isFalse(one.main.ready())
      assert.strictEqual(one.clock.currentTimeMillisUnsafe(), 0)
      one.resume()
    })
    run(1_000)
    assert.deepStrictEqual(heard, ["b30 30", "a10 50", "a20 50", "a60 60"])
  })

  it("wakes nobody of a process that was killed", () => {
    const { heard, one, run, sleeper, two, world } = make()
    sleeper(one, 10, 30)
    sleeper(two, 40)
    world.at(20 * MILLI, undefined, () => one.end("signal SIGKILL"))
    assert.strictEqual(run(1_000), "idle")
    assert.deepStrictEqual(heard, ["a10 10", "b40 40"])
  })

  it("keeps nothing of a sleep that is interrupted", () => {
    const { heard, one, run, say, world } = make()
    let timers = -1
    one.start(
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Effect.andThen(Effect.sleep(50), say("slept")))
        yield* Effect.sleep(10)
        yield* Fiber.interrupt(fiber)
        yield* say("interrupted")
        timers = world.timersOf(one)
      }),
      () => {}
    )
    assert.strictEqual(run(1_000), "idle")
    assert.deepStrictEqual(heard, ["interrupted 10"])
    assert.strictEqual(timers, 0)
    assert.isBelow(world.now, 11 * MILLI)
  })

  it("begins a sleep at the world's time, however long ago it was set", () => {
    const { heard, one, run, sleeper, world } = make()
    world.now = 7_654_321
    sleeper(one, 10)
    run(1_000)
    assert.deepStrictEqual(heard, ["a10 17"])
  })

  it("can be set whatever a process that gives way after any operation was doing", () => {
    for (let budget = 12; budget < 80; budget++) {
      const { heard, one, run, world } = make()
      world.stepNanos = 1
      one.budget = budget
      one.start(Effect.andThen(Effect.sleep(10), Effect.sync(() => heard.push("slept"))), () => {})
      world.beforeStep = () => {
        world.now += 1_000
        one.clock.currentTimeNanosUnsafe()
      }
      run(1_000)
      assert.deepStrictEqual(heard, ["slept"])
    }
  })

  it("wakes a sleeper whose process looked at the time just before it began", () => {
    // It gives way after 16 operations: so many before the sleep put that at each of the sleep's own.
    for (let before = 0; before < 32; before++) {
      for (let looks = 1; looks < 8; looks++) {
        const { heard, one, run, world } = make()
        let left = looks
        world.stepNanos = 1
        one.budget = 16
        let effect: Effect.Effect<unknown> = Effect.andThen(Effect.sleep(10), Effect.sync(() => heard.push("slept")))
        for (let i = 0; i < before; i++) effect = Effect.andThen(Effect.void, effect)
        one.start(effect, () => {})
        world.beforeStep = () => {
          if (left-- <= 0) return
          world.now += 1_000
          one.clock.currentTimeNanosUnsafe()
        }
        assert.strictEqual(run(1_000), "idle")
        assert.deepStrictEqual(heard, ["slept"], `${before} operations before, ${looks} looks`)
      }
    }
  })

  it("tells the world's time, whole milliseconds and nanoseconds", () => {
    const { one, world } = make()
    world.now = 7_654_321
    assert.strictEqual(one.clock.currentTimeMillisUnsafe(), 7)
    assert.strictEqual(one.clock.currentTimeNanosUnsafe(), 7_654_321n)
    assert.strictEqual(one.clock.monotonicTimeNanosUnsafe(), 7_654_321n)
  })
})
