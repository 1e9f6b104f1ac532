/**
 * The machine room of a run: processes, their threads, virtual time, and the choice of who goes next. One thread makes one
 * step at a time; which one is drawn from the seed. Each process brings its own Effect scheduler and a `TestClock`
 * (`ProcessClock.ts`), so that its fibers run only when its main thread is chosen, stop when it is stopped, and are gone,
 * without a finalizer, when it is killed. Time is part of the schedule: a step takes some, and where nobody can make one it
 * goes on to when the next sleep, delivery or fault is due.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import { ProcessClock } from "./ProcessClock.ts"
import type { Random } from "./Random.ts"
import type { Trace } from "./Trace.ts"

/** Whatever can be chosen to make the next step. */
export interface Thread {
  readonly name: string
  readonly process: Process
  /** How often it is chosen, against the others. */
  weight: number
  /** A thread beside a main thread: it may make steps in the middle of one of another process's. */
  readonly beside: boolean
  /** Whether a step is possible now. */
  readonly ready: () => boolean
  readonly step: () => void
}

/** Something a process's main thread polls. */
export interface Source {
  readonly ready: () => boolean
  readonly fire: () => void
}

interface Timer {
  readonly due: number
  readonly order: number
  readonly process: Process | undefined
  readonly run: () => void
}

export const MILLI = 1e6

/** A run of some hundred steps that comes to this many turns in a circle. */
const MOST_STEPS = 250_000

export class World {
  /** Nanoseconds. */
  now = 0
  steps = 0
  readonly random: Random
  readonly trace: Trace
  readonly threads: Array<Thread> = []
  readonly processes: Array<Process> = []
  /** Soonest last. */
  readonly #timers: Array<Timer> = []
  #order = 0
  /** Called before each step: where crashes that are due at a step come from. */
  beforeStep: () => void = () => {}
  /** Told of what a process threw and nobody caught. */
  uncaught: (process: Process, error: unknown) => void = () => {}
  /** Nanoseconds a step takes at most. */
  stepNanos = 20_000

  constructor(random: Random, trace: Trace) {
    this.random = random
    this.trace = trace
  }

  spawn(name: string): Process {
    const process = new Process(this, name)
    this.processes.push(process)
    this.threads.push(process.main)
    return process
  }

  /** Calls `run` at `due` (nanoseconds); not when `process` is dead by then. */
  at(due: number, process: Process | undefined, run: () => void): () => void {
    const timer: Timer = { due, order: this.#order++, process, run }
    const timers = this.#timers
    let i = timers.length
    while (i > 0 && timers[i - 1]!.due <= due) i--
    timers.splice(i, 0, timer)
    return () => {
      const at = timers.indexOf(timer)
      if (at >= 0) timers.splice(at, 1)
    }
  }

  after(millis: number, process: Process | undefined, run: () => void): () => void {
    return this.at(this.now + millis * MILLI, process, run)
  }

  timersOf(process: Process): number {
    return this.#timers.reduce((n, timer) => n + (timer.process === process ? 1 : 0), 0)
  }

  dropTimers(process: Process): void {
    for (let i = this.#timers.length - 1; i >= 0; i--) {
      if (this.#timers[i]!.process === process) this.#timers.splice(i, 1)
    }
  }

  /** What other threads do while a system call of this one is under way: with the chance given a step, and perhaps more. */
  interleave(chance: number): void {
    while (chance > 0 && this.random.chance(chance)) {
      const ready = this.threads.filter((thread) =>
        thread.beside && thread.process.alive && !thread.process.stopped && thread.ready()
      )
      if (ready.length === 0) return
      const thread = this.random.pick(ready)
      this.trace.step(this.threads.indexOf(thread))
      thread.step()
    }
  }

  /** Runs until nothing can happen any more, `until` holds, or the deadline (nanoseconds). Says which. */
  run(deadline: number, until: () => boolean): "idle" | "done" | "late" {
    const ready: Array<Thread> = []
    while (true) {
      if (until()) return "done"
      const timers = this.#timers
      while (timers.length > 0 && timers[timers.length - 1]!.due <= this.now) timers.pop()!.run()
      ready.length = 0
      let weights = 0
      for (const thread of this.threads) {
        const { process } = thread
        if (!process.alive || process.stopped || !thread.ready()) continue
        ready.push(thread)
        weights += thread.weight
      }
      if (ready.length === 0) {
        const next = timers[timers.length - 1]
        if (next === undefined) return "idle"
        if (next.due > deadline) return "late"
        this.now = next.due
        continue
      }
      if (this.now > deadline || this.steps > MOST_STEPS) return "late"
      let at = this.random.below(weights)
      let chosen = ready[0]!
      for (const thread of ready) {
        chosen = thread
        at -= thread.weight
        if (at < 0) break
      }
      this.steps++
      this.now += this.random.below(this.stepNanos)
      this.trace.step(this.threads.indexOf(chosen))
      try {
        chosen.step()
      } catch (error) {
        // What nobody catches ends a process.
        this.uncaught(chosen.process, error)
      }
      this.beforeStep()
    }
  }
}

/** A process: a main thread with Effect in it, descriptors, and whatever other threads are made for it. */
export class Process implements Scheduler.Scheduler, Scheduler.SchedulerDispatcher {
  readonly executionMode = "async"
  readonly world: World
  readonly name: string
  readonly main: Thread
  readonly clock: ProcessClock
  alive = true
  /** Between SIGSTOP and SIGCONT. */
  stopped = false
  exitStatus: string | undefined
  context: Context.Context<never>
  /** Operations after which a fiber gives way. */
  budget = 2048
  #tasks: Array<() => void> = []
  readonly sources: Array<Source> = []
  /** Open descriptors and mappings: what the kernel closes when the process ends. */
  readonly open = new Map<object, { readonly what: string; readonly close: () => void }>()
  /** Called once, when it has ended. */
  readonly onExit: Array<(how: string) => void> = []

  constructor(world: World, name: string) {
    this.world = world
    this.name = name
    this.main = { name, process: this, weight: 8, beside: false, ready: () => this.#ready(), step: () => this.#step() }
    this.clock = new ProcessClock(this)
    this.context = Context.empty().pipe(
      Context.add(Scheduler.Scheduler, this),
      Context.add(Clock.Clock, this.clock)
    ) as Context.Context<never>
  }

  // ------------------------------------------------------------------------------------------------ Scheduler
  shouldYield(fiber: { readonly currentOpCount: number }): boolean {
    return fiber.currentOpCount >= this.budget
  }
  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return this
  }
  scheduleTask(task: () => void): void {
    if (this.alive) this.#tasks.push(task)
  }
  flush(): void {
    throw new Error("nothing of a simulated process runs to its end at once")
  }

  // ------------------------------------------------------------------------------------------------ main thread
  #ready(): boolean {
    if (this.#tasks.length > 0) return true
    for (const source of this.sources) if (source.ready()) return true
    return false
  }

  #step(): void {
    const ready = this.sources.filter((source) => source.ready())
    const tasks = this.#tasks
    const at = this.world.random.below(ready.length + (tasks.length > 0 ? 1 : 0))
    if (at < ready.length) ready[at]!.fire()
    else tasks.shift()!()
  }

  /** Runs an effect on the main thread; `onExit` is called when it is over. */
  start<A, E>(effect: Effect.Effect<A, E>, onExit: (exit: Exit.Exit<A, E>) => void): void {
    this.scheduleTask(() => {
      const fiber = Effect.runForkWith(this.context)(effect)
      fiber.addObserver(onExit)
    })
  }

  // ------------------------------------------------------------------------------------------------ signals
  /** SIGSTOP. */
  stop(): void {
    this.stopped = true
  }

  /** SIGCONT. Sleeps that ended meanwhile wake now, in the order they were due. */
  resume(): void {
    this.stopped = false
    this.clock.catchUp()
  }

  /** Ends it as SIGKILL or `_exit` does: nothing of it runs any more, and the kernel closes what it had open. */
  end(how: string): void {
    if (!this.alive) return
    this.alive = false
    this.exitStatus = how
    this.#tasks = []
    this.sources.length = 0
    this.world.dropTimers(this)
    const open = Array.from(this.open.values())
    this.open.clear()
    for (const { close } of open) close()
    for (const told of this.onExit) told(how)
  }
}
