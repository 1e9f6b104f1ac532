/**
 * When a migration entered its phases, as its own side saw it: for pictures and reports. Times are those of the system's
 * clock, so that what two processes of one host saw can be drawn over each other.
 */
import * as Schema from "effect/Schema"

/**
 * Source: connecting, announced (the guest still runs), paused, switchover, completed.
 * Destination: listening, arriving (first byte), handover (the umem daemon takes over), running, answered, completed.
 * Either: failed, cancelled.
 */
export const Phase = Schema.Literals([
  "connecting",
  "announced",
  "paused",
  "switchover",
  "listening",
  "arriving",
  "handover",
  "running",
  "answered",
  "completed",
  "failed",
  "cancelled"
])
export type Phase = typeof Phase.Type

/** `at`: milliseconds since the epoch, with a fraction. */
export const Mark = Schema.Struct({ phase: Phase, at: Schema.Finite })
export type Mark = typeof Mark.Type

/** With one of these a migration is over, and no other phase begins. */
export const isOver = (phase: Phase): boolean => phase === "completed" || phase === "failed" || phase === "cancelled"

export class Timeline {
  readonly #now: () => number
  #marks: ReadonlyArray<Mark> = []

  constructor(now: () => number) {
    this.#now = now
  }

  /** Forgets an earlier migration. */
  begin(phase: Phase): void {
    this.#marks = [{ phase, at: this.#now() }]
  }

  /** A phase is entered once, and none after the end; what is told again is ignored. */
  mark(phase: Phase): void {
    if (!this.#marks.some((mark) => mark.phase === phase || isOver(mark.phase))) {
      this.#marks = [...this.#marks, { phase, at: this.#now() }]
    }
  }

  get marks(): ReadonlyArray<Mark> {
    return this.#marks
  }
}
