/**
 * The guest as a simulated process hosts it: several vCPUs that read, write and give back memory, each step of theirs a
 * step of the world, and the commands by which the main thread starts, stops, captures and restores them. What they do is
 * drawn from the seed; what they see is held against the guest's history.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { GuestError, type Phase } from "../../src/guests/GuestError.ts"
import type { LoadedBlock, Vcpu } from "../../src/guests/Vcpu.ts"
import { draw, type History, Violation } from "./History.ts"
import type { Block, Kernel, Waiter } from "./Kernel.ts"
import type { Process, Thread, World } from "./World.ts"

/** What a vCPU is doing. */
type Doing =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Read" | "Write"; readonly block: number; readonly page: number; readonly answer?: Answer }
  | { readonly _tag: "Discard"; readonly block: number; readonly page: number; readonly count: number; at: number }

type Answer = (error: GuestError | undefined, value?: unknown) => void

const nothing: Doing = { _tag: "Nothing" }

export interface Options {
  readonly world: World
  readonly process: Process
  readonly kernel: Kernel
  readonly history: History
  readonly side: "source" | "destination"
  readonly vcpus: number
  /** Operations each vCPU has in it. */
  readonly operations: number
  readonly discards: number
  readonly seeks: "placed" | "leaving" | undefined
  /** Bytes of the blocks as the wire has them. */
  readonly deviceState: () => Uint8Array
  /** Told before a vCPU makes a step. */
  readonly onStep: () => void
  /** Told when the guest begins to run here. */
  readonly onRun: () => void
  /** The guest's code throws at this operation of the first vCPU. */
  readonly throwsAt: number | undefined
  readonly restoreFails: boolean
  readonly count: (what: string) => void
  readonly violated: (violation: Violation) => void
}

class GuestThread implements Thread, Waiter {
  readonly name: string
  readonly process: Process
  readonly beside = true
  weight = 4
  waiting = false
  doing: Doing = nothing
  left: number
  /** Pages still to be read once the operations are used up. */
  readonly sweep: Array<readonly [block: number, page: number]> = []
  readonly #guest: Guest

  constructor(guest: Guest, name: string, left: number) {
    this.#guest = guest
    this.name = name
    this.process = guest.options.process
    this.left = left
  }

  /** Whether it has anything to do but wait for commands. */
  get busy(): boolean {
    return this.doing !== nothing
  }

  ready(): boolean {
    if (this.waiting) return false
    // What a thread is in the middle of in the kernel it ends, whatever becomes of the guest's code.
    if (this.#guest.lost) return this.doing._tag === "Discard"
    if (this.doing !== nothing) return true
    if (!this.#guest.running || this.#guest.pausing) return false
    return this.left > 0 || this.sweep.length > 0 || this.#guest.calls.length > 0
  }

  step(): void {
    const guest = this.#guest
    try {
      if (this.doing === nothing) {
        this.doing = guest.next(this)
        if (this.doing === nothing) return
      }
      guest.advance(this, this.doing)
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      guest.options.violated(error)
    }
  }
}

export class Guest {
  readonly options: Options
  readonly threads: ReadonlyArray<GuestThread>
  running = false
  pausing = false
  /** Its own code threw, or its process is ending. */
  lost = false
  closed = false
  operations = 0
  readonly calls: Array<{ readonly block: number; readonly page: number; readonly answer: Answer }> = []
  #settled: Array<() => void> = []
  /** Commands that were not answered yet. */
  readonly #pending = new Set<(error: GuestError) => void>()
  #failure: GuestError | undefined
  /** When the last message between main thread and guest arrives: they keep their order. */
  #lastMessage = 0
  #listener: ((idstr: string, offset: number, length: number) => void) | undefined
  readonly #firstStep = Deferred.makeUnsafe<bigint, GuestError>()
  readonly #crash = Deferred.makeUnsafe<never, GuestError>()
  #stepped = false

  constructor(options: Options) {
    this.options = options
    const { operations, process, vcpus, world } = options
    this.threads = Array.from(
      { length: vcpus },
      (_, i) => new GuestThread(this, `${process.name} vcpu${i}`, operations)
    )
    world.threads.push(...this.threads)
  }

  /** Threads that wait for a page or a removal. */
  get parked(): number {
    return this.threads.reduce((n, { waiting }) => n + (waiting ? 1 : 0), 0)
  }
  get idle(): boolean {
    return this.threads.every((thread) => thread.left === 0 && !thread.busy && thread.sweep.length === 0)
  }

  /** Has every page read once more. */
  sweepAll(): void {
    const { kernel } = this.options
    for (const [block, { pages }] of kernel.blocks.entries()) {
      for (let page = 0; page < pages.length; page++) {
        this.threads[(block + page) % this.threads.length]!.sweep.push([block, page])
      }
    }
  }

  #draw(): readonly [block: number, page: number] {
    const { kernel, seeks, world: { random } } = this.options
    if (kernel.near >= 0 && random.chance(0.4)) {
      const near = kernel.at(kernel.near)
      if (near !== undefined) return near
    }
    if (seeks !== undefined && random.chance(0.5)) {
      const sought = seeks === "placed" ? kernel.at(kernel.placed) : this.#leaving()
      if (sought !== undefined) return sought
    }
    const block = random.below(kernel.blocks.length)
    return [block, random.below(kernel.blocks[block]!.pages.length)]
  }

  /** The page that stays longest of those whose removal was read, and which are still there. */
  #leaving(): readonly [block: number, page: number] | undefined {
    for (const { doing } of this.threads) {
      if (doing._tag !== "Discard" || doing.at < 0 || doing.at === doing.count) continue
      return [doing.block, doing.page + doing.count - 1]
    }
    return undefined
  }

  next(thread: GuestThread): Doing {
    const { discards, kernel, onStep, side, throwsAt, world: { random } } = this.options
    onStep()
    const call = this.calls.shift()
    if (call !== undefined) return { _tag: "Read", ...call }
    if (thread.left === 0) {
      const swept = thread.sweep.pop()
      return swept === undefined ? nothing : { _tag: "Read", block: swept[0], page: swept[1] }
    }
    thread.left--
    this.operations++
    if (throwsAt !== undefined && this.operations === throwsAt) {
      this.options.count("fault: guest throws")
      this.fail("step", "the guest's code threw")
      return nothing
    }
    const [block, page] = this.#draw()
    const kind = random.below(100)
    if (kind < discards) {
      const count = random.between(1, Math.min(random.pick([1, 4, 9]), kernel.blocks[block]!.pages.length - page))
      return { _tag: "Discard", block, page, count, at: -1 }
    }
    return { _tag: kind < discards + 40 + (side === "source" ? 35 : 0) ? "Write" : "Read", block, page }
  }

  advance(thread: GuestThread, doing: Doing): void {
    const { history, kernel, world } = this.options
    if (doing._tag === "Nothing") return
    const block = kernel.blocks[doing.block]!
    if (doing._tag === "Discard") {
      this.#discard(thread, doing, block)
      return
    }
    const bytes = kernel.touch(block, doing.page, thread)
    if (bytes === undefined) {
      world.trace.note(`${thread.name} faults`, doing.block, doing.page)
      return
    }
    history.read(doing.block, doing.page, bytes)
    if (doing._tag === "Write") {
      const at = doing.page * kernel.pageSize
      const { data, offset } = draw(world.random, kernel.pageSize, Math.min(kernel.pageSize, block.length - at))
      bytes.set(data, offset)
      history.write(doing.block, doing.page, offset, data)
    }
    world.trace.note(`${thread.name} ${doing._tag === "Write" ? "writes" : "reads"}`, doing.block, doing.page)
    this.#done(thread)
    doing.answer?.(undefined, bytes[0])
  }

  #discard(thread: GuestThread, doing: Extract<Doing, { _tag: "Discard" }>, block: Block): void {
    const { history, kernel, process, world } = this.options
    if (doing.at === -1) {
      for (let i = 0; i < doing.count; i++) history.discardBegins(doing.block, doing.page + i)
      world.trace.note(`${thread.name} discards`, doing.block, doing.page)
      doing.at = kernel.beginRemoval(block, doing.page, doing.count, thread) ? -2 : 0
      return
    }
    if (doing.at === -2) {
      kernel.endRemoval()
      doing.at = 0
      return
    }
    if (doing.at < doing.count) {
      kernel.zap(block, doing.page + doing.at)
      history.discardEnds(doing.block, doing.page + doing.at)
      doing.at++
      return
    }
    this.#done(thread)
    const listener = this.#listener
    if (listener === undefined) return
    const offset = doing.page * kernel.pageSize
    const length = Math.min(doing.count * kernel.pageSize, block.length - offset)
    process.scheduleTask(() => listener(block.idstr, offset, length))
  }

  #done(thread: GuestThread): void {
    thread.doing = nothing
    if (!this.#stepped) {
      this.#stepped = true
      const nanos = this.options.process.clock.currentTimeNanosUnsafe()
      this.options.process.scheduleTask(() => Deferred.doneUnsafe(this.#firstStep, Exit.succeed(nanos)))
    }
    this.#settle()
  }

  #settle(): void {
    if (!this.pausing || this.threads.some(({ busy }) => busy)) return
    const told = this.#settled
    this.#settled = []
    for (const tell of told) tell()
  }

  /** The guest's own code failed: it is lost. */
  fail(phase: Phase, message: string): void {
    this.lost = true
    this.running = false
    const error = new GuestError({ phase, message })
    this.options.process.scheduleTask(() => {
      this.#failure = error
      for (const refuse of Array.from(this.#pending)) refuse(error)
      Deferred.doneUnsafe(this.#crash, Exit.fail(error))
      Deferred.doneUnsafe(this.#firstStep, Exit.fail(error))
    })
  }

  #run(): void {
    this.pausing = false
    this.running = true
    this.options.onRun()
  }

  /** A command to the guest's thread and its answer, both a little late. */
  #command<A>(run: (reply: (exit: Exit.Exit<A, GuestError>) => void) => void): Effect.Effect<A, GuestError> {
    const { process, world } = this.options
    return Effect.callback<A, GuestError>((resume) => {
      if (this.#failure !== undefined) {
        resume(Effect.fail(this.#failure))
        return
      }
      const refuse = (error: GuestError) => settle(Exit.fail(error))
      const settle = (exit: Exit.Exit<A, GuestError>) => {
        if (this.#pending.delete(refuse)) resume(exit)
      }
      this.#pending.add(refuse)
      // Messages between two threads of a process are no timers of its main thread.
      const late = (then: () => void) => {
        this.#lastMessage = Math.max(this.#lastMessage, world.now + world.random.below(300_000))
        world.at(this.#lastMessage, undefined, () => {
          if (process.alive) then()
        })
      }
      late(() => {
        if (!this.closed) run((exit) => late(() => process.scheduleTask(() => settle(exit))))
      })
      return Effect.sync(() => {
        this.#pending.delete(refuse)
      })
    })
  }

  /** What the main thread has of it. */
  vcpu(): Vcpu {
    const { deviceState, kernel, process, restoreFails } = this.options
    const blocks = kernel.blocks.map((block): LoadedBlock => ({
      idstr: block.idstr,
      length: block.length,
      maximum: block.length,
      hostPageSize: kernel.pageSize,
      memory: { _tag: "Region", token: 0n, backing: block.file === undefined ? "anonymous" : "memfd" }
    }))
    return {
      kind: "memory",
      blocks: () => blocks,
      measure: this.#command((reply) => reply(Exit.succeed(blocks))),
      start: this.#command((reply) => {
        this.#run()
        reply(Exit.void)
      }),
      run: this.#command((reply) => {
        this.#run()
        reply(Exit.void)
      }),
      pause: this.#command((reply) => {
        this.pausing = true
        this.#settled.push(() => {
          this.running = false
          reply(Exit.succeed({ lastStepNanos: process.clock.currentTimeNanosUnsafe() }))
        })
        this.#settle()
      }),
      capture: this.#command((reply) => reply(Exit.succeed(deviceState()))),
      grow: () => Effect.fail(new GuestError({ phase: "grow", message: "this guest does not grow" })),
      restore: (state) =>
        this.#command((reply) => {
          if (restoreFails) {
            this.options.count("fault: restore fails")
            reply(Exit.fail(new GuestError({ phase: "restore", message: "the guest refused its device state" })))
            return
          }
          if (state === undefined || Buffer.compare(state, deviceState()) !== 0) {
            this.options.violated(new Violation("the guest was restored with another device state"))
          }
          this.#run()
          reply(Exit.void)
        }),
      call: () =>
        this.#command((reply) => {
          const [block, page] = this.#draw()
          this.calls.push({
            block,
            page,
            answer: (error, value) => reply(error === undefined ? Exit.succeed(value) : Exit.fail(error))
          })
        }),
      discards: (listener) => {
        this.#listener = listener
      },
      firstStepNanos: Deferred.await(this.#firstStep),
      crashed: Deferred.await(this.#crash)
    }
  }

  /** Ends the threads, as far as they can be ended. */
  close(): void {
    this.closed = true
    this.running = false
    this.lost = true
  }
}
