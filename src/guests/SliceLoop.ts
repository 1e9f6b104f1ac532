/**
 * Runs a guest in slices and keeps the promise that it is paused only between them. One instance per vCPU thread; it
 * knows nothing of messages, only of what to do and whom to tell.
 *
 * ```
 *   idle ──start / restore──▶ running ──pause──▶ pausing ──slice ended, no call under way──▶ paused
 *                                ▲───────────────run────────────┴────────────────────────────┘
 * ```
 * Calls begin in `running` only, all others are held until then. While pausing, slices go on as long as an asynchronous
 * call is under way: it may be waiting for what a slice does.
 */
import * as GuestFailure from "./GuestFailure.ts"
import type { LoadedGuest } from "./GuestModule.ts"
import type { Replies } from "./VcpuMessages.ts"

/** Slices run without a turn of the event loop for at most this long, ms: what a message waits for in a running guest. */
const turnMillis = 1

export interface Options {
  readonly guest: LoadedGuest
  /** The main thread has posted something that this thread has not received yet. */
  readonly attention: () => boolean
  /** The first slice, or the first answered call, after start or restore has ended. */
  readonly onFirstStep: (nanos: bigint) => void
  /** The guest is lost. Nothing runs any more. */
  readonly onCrash: (failure: GuestFailure.GuestFailure) => void
}

/** A call as the main thread asked for it. */
export interface Call {
  readonly id: number
  readonly request: string
  readonly answered: (answer: string) => void
  readonly refused: (failure: GuestFailure.GuestFailure) => void
}

interface Waiter {
  readonly paused: (reply: Replies["pause"]) => void
  readonly abandoned: () => void
}

export class SliceLoop {
  readonly #options: Options
  #mode: "idle" | "running" | "pausing" | "paused" | "crashed" = "idle"
  /** An asynchronous slice has not settled yet. */
  #stepping = false
  #scheduled = false
  /** The guest said that it has nothing to do until then. */
  #rest: NodeJS.Timeout | undefined
  /** This turn was given up for a message that is on its way. */
  #skipped = false
  #underWay = 0
  #held: Array<Call> = []
  #waiters: Array<Waiter> = []
  #lastStep: bigint | undefined
  #pausedAt = 0n
  #firstStepDue = false

  constructor(options: Options) {
    this.#options = options
  }

  /** Calls `start`, then runs. */
  async start(): Promise<void> {
    this.#expect("start", "idle")
    await this.#enter("start", () => this.#options.guest.start())
  }

  /** Gives the guest its device state, if any came, then runs. */
  async restore(state: Uint8Array | undefined): Promise<void> {
    this.#expect("restore", "idle")
    const { blocks, restore } = this.#options.guest
    await this.#enter("restore", () => {
      blocks.stageIn()
      return state === undefined ? undefined : restore(state)
    })
  }

  /** Goes on after a pause, also one that has not been reached yet. */
  run(): void {
    this.#expect("run", "running", "pausing", "paused")
    const waiters = this.#waiters.splice(0)
    this.#mode = "running"
    for (const waiter of waiters) waiter.abandoned()
    for (const call of this.#held.splice(0)) this.#begin(call)
    this.#wake()
  }

  /** Stops after the running slice, once every call under way has settled. */
  pause(waiter: Waiter): void {
    this.#expect("pause", "running", "pausing", "paused")
    this.#waiters.push(waiter)
    if (this.#mode === "running") this.#mode = "pausing"
    this.#settle()
  }

  /** The device state of a paused guest; its memory can be read afterwards. */
  async capture(): Promise<Uint8Array> {
    this.#expect("save", "paused")
    const { blocks, save } = this.#options.guest
    try {
      const state = await save()
      blocks.stageOut()
      return state
    } catch (error) {
      throw GuestFailure.from("save", "the guest's save threw", error)
    }
  }

  call(call: Call): void {
    if (this.#mode === "running") this.#begin(call)
    else this.#held.push(call)
  }

  /** Drops a call that has not begun. */
  abandon(id: number): void {
    this.#held = this.#held.filter((call) => call.id !== id)
  }

  /** @throws GuestFailure unless the guest stands still, as growing its memory asks for */
  expectStill(): void {
    this.#expect("grow", "idle", "paused")
  }

  #expect(phase: "start" | "restore" | "run" | "pause" | "save" | "grow", ...modes: ReadonlyArray<string>) {
    if (modes.includes(this.#mode)) return
    const named = phase === "run" || phase === "pause" ? "thread" : phase
    throw new GuestFailure.GuestFailure(named, `${phase}: the guest is ${this.#mode}, not ${modes.join(" or ")}`)
  }

  async #enter(phase: "start" | "restore", prepare: () => unknown) {
    try {
      await prepare()
    } catch (error) {
      const failure = GuestFailure.from(phase, `the guest's ${phase} threw`, error)
      this.#crash(failure)
      throw failure
    }
    this.#firstStepDue = true
    this.#mode = "running"
    this.run()
  }

  #schedule() {
    const slices = this.#options.guest.step !== undefined && !this.#stepping && this.#rest === undefined
    if (this.#scheduled || !slices || (this.#mode !== "running" && this.#mode !== "pausing")) return
    this.#scheduled = true
    setImmediate(this.#turn)
  }

  readonly #wake = () => {
    clearTimeout(this.#rest)
    this.#rest = undefined
    this.#schedule()
  }

  readonly #turn = () => {
    this.#scheduled = false
    if (this.#mode !== "running" && this.#mode !== "pausing") return
    const { attention, guest } = this.#options
    // Once only: a guest that is called all the time must still get its slices.
    if (attention() && !this.#skipped) {
      this.#skipped = true
      return this.#schedule()
    }
    this.#skipped = false
    const until = performance.now() + turnMillis
    let last: unknown
    try {
      do {
        const result = guest.step!()
        if (isThenable(result)) {
          this.#stepping = true
          result.then((settled) => {
            this.#stepping = false
            this.#sliceEnded(settled)
          }, this.#stepThrew)
          return
        }
        last = result
        if (this.#firstStepDue) this.#firstStep()
      } while (restOf(last) === undefined && !attention() && performance.now() < until)
    } catch (error) {
      return this.#stepThrew(error)
    }
    this.#sliceEnded(last)
  }

  readonly #stepThrew = (error: unknown) => {
    this.#crash(GuestFailure.from("step", "the guest's step threw", error))
  }

  #sliceEnded(result: unknown) {
    this.#lastStep = process.hrtime.bigint()
    if (this.#firstStepDue) this.#firstStep()
    this.#settle()
    const rest = restOf(result)
    if (rest !== undefined) this.#rest = setTimeout(this.#wake, rest)
    this.#schedule()
  }

  #firstStep() {
    this.#firstStepDue = false
    this.#options.onFirstStep(process.hrtime.bigint())
  }

  #settle() {
    if (this.#mode === "pausing" && !this.#stepping && this.#underWay === 0) {
      this.#mode = "paused"
      this.#pausedAt = process.hrtime.bigint()
    }
    if (this.#mode !== "paused") return
    const lastStepNanos = this.#lastStep ?? this.#pausedAt
    for (const waiter of this.#waiters.splice(0)) waiter.paused({ lastStepNanos })
  }

  #begin(call: Call) {
    this.#underWay++
    this.#answer(call).then(call.answered, (error: unknown) => {
      call.refused(GuestFailure.from("call", "the guest's call handler threw", error))
    }).finally(() => {
      this.#underWay--
      if (this.#firstStepDue) this.#firstStep()
      this.#settle()
    })
  }

  async #answer(call: Call): Promise<string> {
    const handler = this.#options.guest.call
    if (handler === undefined) throw new GuestFailure.GuestFailure("call", "the guest has no call handler")
    const answer = await handler(JSON.parse(call.request))
    // A value that JSON has no word for, such as undefined, is null.
    return JSON.stringify(answer) ?? "null"
  }

  #crash(failure: GuestFailure.GuestFailure) {
    if (this.#mode === "crashed") return
    clearTimeout(this.#rest)
    this.#mode = "crashed"
    this.#options.onCrash(failure)
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === "object" && value !== null && typeof (value as { readonly then?: unknown }).then === "function"

/** What a slice may ask for; anything else that it returns means nothing. */
const restOf = (result: unknown): number | undefined => {
  const rest: unknown = typeof result === "object" && result !== null && "restMillis" in result && result.restMillis
  return typeof rest === "number" && rest >= 0 ? rest : undefined
}
