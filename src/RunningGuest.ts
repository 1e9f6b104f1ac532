/**
 * The one implementation of `GuestHandle`: the gate in front of the guest's calls, and the record of the migration it
 * takes part in. The gate is what keeps one owner at a time: it is closed for good by the latch.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import type { SenderProgress } from "./actors/SourceSender.ts"
import type { GuestHandle } from "./GuestHandle.ts"
import type { GuestError } from "./guests/GuestError.ts"
import type { Vcpu } from "./guests/Vcpu.ts"
import * as MemoryMap from "./MemoryMap.ts"
import { Cancelled, type GuestIs, MigrationError, Refused } from "./MigrationError.ts"
import type { Observation } from "./Observation.ts"
import type { OutgoingMigration } from "./OutgoingMigration.ts"
import type { Bitmap } from "./protocol/Bitmap.ts"
import type { State, Status } from "./Report.ts"
import type { DaemonCounters } from "./services/DaemonCounters.ts"
import type { PageStates } from "./services/PageStates.ts"
import type { RateLimit } from "./services/RateLimit.ts"
import { Timeline } from "./Timeline.ts"

/** Where calls go: to the guest, nowhere yet, or back with the reason. */
type Gate =
  | { readonly _tag: "Open" }
  | { readonly _tag: "Held" }
  | { readonly _tag: "Closed"; readonly error: MigrationError }

export class RunningGuest implements GuestHandle {
  readonly #now: () => number
  readonly vcpu: Vcpu
  readonly side: "source" | "destination"
  readonly lost: Deferred.Deferred<never, GuestError | MigrationError> = Deferred.makeUnsafe()
  #state: State
  #gate: Gate
  #changed: Deferred.Deferred<void> = Deferred.makeUnsafe()
  #pausedByUser = false
  #outgoing: OutgoingMigration | undefined
  #lastProgress: SenderProgress | undefined
  #lastLimit: Pick<Observation, "background" | "maxBandwidth"> = { background: true, maxBandwidth: null }
  #lastUnsent: ReadonlyArray<Bitmap> = []
  #error: string | undefined
  /** Of the migration under way, or the last one. */
  id: string = randomUUID()
  readonly timeline: Timeline
  /** Milliseconds from the guest's pause to the latch, or from the first byte to its resumption. */
  downtimeMs: number | undefined
  /** The destination's numbers, once there is a daemon. */
  counters: DaemonCounters | undefined
  /** What has become of each page of a destination, once there is a daemon. */
  states: () => PageStates | undefined = () => undefined
  /** Whether the source has been silent for too long, told by the owner of the clock. */
  stalled: () => boolean = () => false
  /**
   * At a destination: whether the guest may be running. True from before its device state is given to its thread, whose
   * answer comes later than its first step; false again only when the thread has refused it.
   */
  mayRun = false
  /** Called with each answer the guest gave. */
  onAnswer: () => void = () => {}

  /** `now`: milliseconds since the epoch. */
  constructor(vcpu: Vcpu, side: "source" | "destination", now: () => number) {
    this.#now = now
    this.timeline = new Timeline(now)
    if (side === "destination") this.timeline.begin("listening")
    this.vcpu = vcpu
    this.side = side
    this.#state = side === "source" ? "running" : "listening"
    this.#gate = side === "source" ? { _tag: "Open" } : { _tag: "Held" }
  }

  #refused(detail: string, guest: GuestIs): MigrationError {
    return new MigrationError({ side: this.side, guest, reason: new Refused({ detail }) })
  }

  /** A command that the guest's end does not allow any more: why it ended is the reason. */
  #refusedBy({ guest, reason }: MigrationError): MigrationError {
    return this.#refused(reason.detail, guest)
  }

  #setGate(gate: Gate): void {
    if (this.#gate._tag === "Closed") return
    this.#gate = gate
    const changed = this.#changed
    this.#changed = Deferred.makeUnsafe()
    Deferred.doneUnsafe(changed, Effect.void)
  }

  get state(): State {
    return this.#state
  }

  /** The guest runs here from now on. */
  opened(): void {
    if (this.counters !== undefined && this.#lastProgress === undefined) this.timeline.mark("running")
    this.#state = this.#pausedByUser ? "paused" : "running"
    this.#setGate({ _tag: this.#pausedByUser ? "Held" : "Open" })
  }

  moving(state: "migrating" | "postcopy" | "incoming"): void {
    this.#state = state
    if (state === "incoming") this.timeline.mark("arriving")
    if (state === "incoming") this.#setGate({ _tag: "Held" })
  }

  held(): void {
    this.#setGate({ _tag: "Held" })
  }

  /** Nothing of this guest will ever be answered here again. */
  closed(state: "completed" | "failed" | "postcopy", error: MigrationError): void {
    this.#state = state
    if (state === "failed") this.#error = error.message
    this.timeline.mark(state === "postcopy" ? "switchover" : state)
    this.#setGate({ _tag: "Closed", error })
  }

  completed(): void {
    this.timeline.mark("completed")
    this.#state = "completed"
  }

  /** The guest's own code or thread failed: it is lost here. */
  crashed(error: MigrationError): void {
    if (this.#gate._tag === "Closed") return
    this.closed("failed", error)
    Deferred.doneUnsafe(this.lost, Effect.fail(error))
  }

  /** The migration failed after the latch: the guest's memory is kept, and calls are told what is known. */
  lostAfterLatch(error: MigrationError): void {
    this.timeline.mark("failed")
    this.#state = "failed"
    this.#error = error.message
    this.#gate = { _tag: "Closed", error }
  }

  failedBeforeLatch({ message, reason }: MigrationError): void {
    this.timeline.mark(reason._tag === "Cancelled" ? "cancelled" : "failed")
    this.#error = message
  }

  /** Begins an outgoing migration, or says why there can be none now. */
  beginOutgoing(outgoing: OutgoingMigration): MigrationError | undefined {
    if (this.#outgoing !== undefined) {
      return this.#refused(
        "this guest is being migrated already: wait for it, or cancel it",
        this.#outgoing.latched ? "destination" : "source"
      )
    }
    if (this.#gate._tag === "Closed") return this.#gate.error
    if (this.side === "destination" && this.#state !== "completed") {
      return this.#refused(
        "this guest's own incoming migration is not complete: migrate it when all of its pages are here",
        "source"
      )
    }
    this.#outgoing = outgoing
    this.timeline.begin("connecting")
    this.id = outgoing.id ?? randomUUID()
    this.downtimeMs = undefined
    this.#error = undefined
    this.#state = "migrating"
    return undefined
  }

  endOutgoing(): void {
    const outgoing = this.#outgoing
    if (outgoing === undefined) return
    this.#lastProgress = outgoing.progress()
    this.#lastLimit = { background: outgoing.rate.background(), maxBandwidth: outgoing.rate.get() ?? null }
    this.#lastUnsent = outgoing.unsent()
    this.#outgoing = undefined
    Deferred.doneUnsafe(outgoing.over, Effect.void)
  }

  get pausedByUser(): boolean {
    return this.#pausedByUser
  }

  readonly status: Effect.Effect<Status> = Effect.sync(() => {
    const error = this.#error === undefined ? {} : { error: this.#error }
    const counters = this.counters
    if (
      this.side === "destination" && counters !== undefined && this.#outgoing === undefined &&
      this.#lastProgress === undefined
    ) {
      const total = counters.get("total")
      const remaining = counters.missing()
      const state = this.#state === "running" && remaining > 0 && this.stalled() ? "stalled" : this.#state
      const transferred = counters.get("onDemand") + counters.get("background")
      const blockedMs = counters.get("blockedMicros") / 1000
      return { role: this.side, state, transferred, remaining, total, blockedMs, ...error }
    }
    const progress = this.#outgoing?.progress() ?? this.#lastProgress
    const total = progress?.total ?? this.vcpu.blocks().reduce((sum, { length }) => sum + length / 4096, 0)
    const transferred = progress === undefined ? 0 : progress.onDemand + progress.background
    const remaining = progress === undefined ? total : progress.dirty
    return { role: this.side, state: this.#state, transferred, remaining, total, blockedMs: 0, ...error }
  })

  readonly call = (request: unknown): Effect.Effect<unknown, GuestError | MigrationError> =>
    Effect.gen({ self: this }, function*() {
      while (this.#gate._tag === "Held") yield* Deferred.await(this.#changed)
      if (this.#gate._tag === "Closed") return yield* this.#gate.error
      const answer = yield* Effect.raceFirst(this.vcpu.call(request), Deferred.await(this.lost))
      this.onAnswer()
      return answer
    })

  readonly pause: Effect.Effect<void, GuestError | MigrationError> = Effect.gen({ self: this }, function*() {
    if (this.#gate._tag === "Closed") return yield* this.#refusedBy(this.#gate.error)
    if (this.#outgoing !== undefined) {
      return yield* this.#refused(
        "the guest is being migrated: it cannot be paused now, wait for the migration or cancel it",
        "source"
      )
    }
    if (
      this.side === "destination" && this.#state !== "running" && this.#state !== "completed" &&
      this.#state !== "paused"
    ) {
      return yield* this.#refused("the guest has not arrived yet: it cannot be paused, wait until it runs", "source")
    }
    if (this.#pausedByUser) return
    this.#pausedByUser = true
    this.#setGate({ _tag: "Held" })
    if (this.#state === "running") this.#state = "paused"
    yield* this.vcpu.pause
  })

  readonly resume: Effect.Effect<void, GuestError | MigrationError> = Effect.gen({ self: this }, function*() {
    if (this.#gate._tag === "Closed") return yield* this.#refusedBy(this.#gate.error)
    if (this.#outgoing !== undefined) {
      return yield* this.#refused(
        "the guest is being migrated: it cannot be resumed now, wait for the migration or cancel it",
        "source"
      )
    }
    if (!this.#pausedByUser) return
    this.#pausedByUser = false
    yield* this.vcpu.run
    if (this.#state === "paused") this.#state = "running"
    this.#setGate({ _tag: "Open" })
  })

  readonly cancel: Effect.Effect<void, MigrationError> = Effect.gen({ self: this }, function*() {
    const outgoing = this.#outgoing
    if (outgoing === undefined) {
      return yield* this.#gate._tag === "Closed"
        ? this.#refusedBy(this.#gate.error)
        : this.#refused("no migration of this guest is under way: there is nothing to cancel, see its status", "source")
    }
    // One that failed or was cancelled before the latch and is not over yet is waited for: the guest is about to run on.
    if (outgoing.latched && outgoing.refuses({ _tag: "Cancel" })) {
      return yield* this.#refused(
        "the guest has switched over: the migration cannot be cancelled any more, wait until its memory has followed it",
        "destination"
      )
    }
    Deferred.doneUnsafe(outgoing.cancelled, Effect.fail(new Cancelled({ detail: "the migration was cancelled" })))
    yield* Deferred.await(outgoing.over)
  })

  #ofMigration(change: (rate: RateLimit) => void): Effect.Effect<void, MigrationError> {
    return Effect.suspend(() => {
      if (this.#outgoing === undefined) {
        const detail = "no migration of this guest is under way: set it when the migration starts"
        return Effect.fail(this.#refused(`${detail} (--max-bandwidth, --nobg)`, "source"))
      }
      change(this.#outgoing.rate)
      return Effect.void
    })
  }

  readonly setMaxBandwidth = (bytesPerSecond: number | undefined): Effect.Effect<void, MigrationError> =>
    this.#ofMigration((rate) => rate.set(bytesPerSecond))

  readonly setBackground = (on: boolean): Effect.Effect<void, MigrationError> =>
    this.#ofMigration((rate) => rate.setBackground(on))

  readonly owesPages: Effect.Effect<boolean> = Effect.sync(() => this.#outgoing?.latched === true)

  readonly observe = (cells: number): Effect.Effect<Observation> =>
    Effect.map(this.status, (status) => {
      const blocks = this.vcpu.blocks().map(({ idstr, length }) => ({ idstr, length }))
      const outgoing = this.#outgoing
      const sent = outgoing?.progress() ?? this.#lastProgress
      const arriving = outgoing === undefined && sent === undefined ? this.counters : undefined
      const map = cells === 0
        ? undefined
        : arriving === undefined
        ? MemoryMap.sent(outgoing?.unsent() ?? this.#lastUnsent, cells)
        : MemoryMap.arrived(this.states(), cells)
      return {
        id: this.id,
        at: this.#now(),
        status,
        memoryBytes: blocks.reduce((sum, { length }) => sum + length, 0),
        pageSize: 4096,
        blocks,
        pages: arriving?.pages() ?? {
          total: status.total,
          onDemand: sent?.onDemand ?? 0,
          background: sent?.background ?? 0,
          fill: sent?.fill ?? 0,
          removed: sent?.removed ?? 0
        },
        bytesSent: arriving?.get("bytesSent") ?? sent?.bytesSent ?? 0,
        bytesReceived: arriving?.get("bytesReceived") ?? 0,
        timeline: this.timeline.marks,
        downtimeMs: this.downtimeMs ?? null,
        inFlight: arriving?.get("outstanding") ?? 0,
        ...(arriving === undefined ? {} : { faults: arriving.faults(), histogram: arriving.histogram() }),
        ...(outgoing === undefined
          ? this.#lastLimit
          : { background: outgoing.rate.background(), maxBandwidth: outgoing.rate.get() ?? null }),
        ...(map === undefined ? {} : { cells: map })
      }
    })
}
