/**
 * The clock of a simulated process: Effect's `TestClock`, which the world sets. When the earliest of its sleeps is due, or
 * the process asks for the time, the world's time is set by the clock's own effect, on a scheduler that is drained before
 * anything else happens. Whoever that wakes goes on as a task of its process, so that its turn is drawn as every other one.
 * The clock of a process that is stopped stands still until SIGCONT; that of one that was killed, for ever.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { MILLI, type Process } from "./World.ts"

/** What a test clock's own effects run on: a list of tasks that is empty again before `runToEnd` returns. */
class Drain implements Scheduler.Scheduler, Scheduler.SchedulerDispatcher {
  readonly executionMode = "async"
  readonly #tasks: Array<() => void> = []
  readonly #context = Context.make(Scheduler.Scheduler, this)

  shouldYield(): boolean {
    return false
  }
  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return this
  }
  scheduleTask(task: () => void): void {
    this.#tasks.push(task)
  }
  flush(): void {
    for (let i = 0; i < this.#tasks.length; i++) this.#tasks[i]!()
    this.#tasks.length = 0
  }

  runToEnd<A>(effect: Effect.Effect<A>): A {
    const fiber = Effect.runForkWith(this.#context)(effect)
    this.flush()
    const exit = fiber.pollUnsafe()
    if (exit === undefined) throw new Error("the test clock waits for something outside of it")
    if (Exit.isFailure(exit)) throw new Error(`the test clock failed: ${String(exit.cause)}`)
    return exit.value
  }
}

export class ProcessClock implements Clock.Clock {
  readonly #process: Process
  readonly #drain = new Drain()
  readonly #clock: TestClock.TestClock

  constructor(process: Process) {
    this.#process = process
    const make = Effect.provideService(TestClock.make(), Scope.Scope, Scope.makeUnsafe())
    // Set once before it is used, it does not warn, in real time, of sleeps that nobody ends.
    this.#clock = this.#drain.runToEnd(Effect.tap(make, (clock) => clock.setTime(process.world.now / MILLI)))
  }

  /**
   * Brings it to the world's time, and wakes whose sleep ends by then. `due` is when a sleep ends (milliseconds): it is the
   * world's time, but for rounding.
   */
  catchUp(due = 0): void {
    const { alive, stopped, world } = this.#process
    const millis = Math.max(due, world.now / MILLI)
    if (!alive || stopped || millis <= this.#clock.currentTimeMillisUnsafe()) return
    this.#drain.runToEnd(this.#clock.setTime(millis))
  }

  // ------------------------------------------------------------------------------------------------ Clock
  /** Whole milliseconds, as a system's clock has them: it need not be set where that makes no difference. */
  currentTimeMillisUnsafe(): number {
    const clock = this.#clock
    if (Math.floor(this.#process.world.now / MILLI) > Math.floor(clock.currentTimeMillisUnsafe())) this.catchUp()
    return Math.floor(clock.currentTimeMillisUnsafe())
  }
  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  currentTimeNanosUnsafe(): bigint {
    this.catchUp()
    return this.#clock.currentTimeNanosUnsafe()
  }
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  monotonicTimeNanosUnsafe(): bigint {
    this.catchUp()
    return this.#clock.monotonicTimeNanosUnsafe()
  }
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const sleeping = Effect.suspend(() => {
      const process = this.#process
      const clock = this.#clock
      // What it is behind is slept in addition: cheaper than setting it.
      const behind = Duration.millis(Math.max(0, process.world.now / MILLI - clock.currentTimeMillisUnsafe()))
      const whole = Duration.sum(duration, behind)
      const due = clock.currentTimeMillisUnsafe() + Duration.toMillis(whole)
      const cancel = process.world.at(due * MILLI, process, () => this.catchUp(due))
      return Effect.ensuring(clock.sleep(whole), Effect.sync(cancel))
    })
    // Who gave way in the middle of it would sleep from a later time on than the world was told, or keep the clock's semaphore
    // so that it cannot be set. The clock goes on with whom it wakes at once; giving way then makes a task of it.
    return Effect.andThen(Effect.provideService(sleeping, Scheduler.PreventSchedulerYield, true), Effect.yieldNow)
  }
}
