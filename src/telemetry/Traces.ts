/**
 * Spans and logs of a migration. One span a migration, and under it one a phase, made at the end from the marks of the
 * timeline: nothing is traced while the guest stands still, and nothing ever per page. Everything that is logged
 * meanwhile carries the migration's id.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { Phase, Timeline } from "../Timeline.ts"

/** What begins with a mark, and lasts until the next one. The first answer is within a phase: an event. */
const names: Partial<Record<Phase, string>> = {
  connecting: "postcopy.connect",
  announced: "postcopy.announce",
  paused: "postcopy.switchover",
  switchover: "postcopy.pages",
  arriving: "postcopy.arrive",
  handover: "postcopy.switchover",
  running: "postcopy.pages"
}

const nanos = (millis: number) => BigInt(Math.round(millis * 1e6))

const spanPhases = (span: Tracer.Span, tracer: Tracer.Tracer, timeline: Timeline, now: bigint) => {
  const marks = timeline.marks.filter(({ phase }) => phase !== "answered")
  const answered = timeline.marks.find(({ phase }) => phase === "answered")
  if (answered !== undefined) span.event("first answer", nanos(answered.at))
  for (const [i, { at, phase }] of marks.entries()) {
    const name = names[phase]
    if (name === undefined) continue
    tracer.span({
      name,
      parent: Option.some(span),
      annotations: Context.empty(),
      links: [],
      startTime: nanos(at),
      kind: "internal",
      root: false,
      sampled: span.sampled
    }).end(marks[i + 1] === undefined ? now : nanos(marks[i + 1]!.at), Exit.void)
  }
}

export interface Traced {
  readonly id: string
  readonly role: "source" | "destination"
  /** Where it goes to or comes from. */
  readonly peer: string
  readonly timeline: Timeline
}

/** A migration, with its span and its logs. */
export const migration =
  ({ id, peer, role, timeline }: Traced) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.gen(function*() {
      const span = yield* Effect.orDie(Effect.currentSpan)
      const tracer = yield* Tracer.Tracer
      const clock = yield* Clock.Clock
      yield* Effect.logDebug("migration begins")
      return yield* effect.pipe(
        Effect.onExit((exit) => {
          spanPhases(span, tracer, timeline, clock.currentTimeNanosUnsafe())
          if (Exit.isSuccess(exit)) return Effect.logDebug("migration completed")
          // The destination marks its end only after this: what the timeline says last may be a phase.
          const isCancelled = timeline.marks.at(-1)?.phase === "cancelled"
          return Effect.logDebug(`migration ${isCancelled ? "cancelled" : "failed"}`, exit.cause)
        })
      )
    }).pipe(
      Effect.withSpan("postcopy.migration", {
        attributes: { "postcopy.migration.id": id, "postcopy.role": role, "postcopy.peer": peer }
      }),
      Effect.annotateLogs({ migration: id, role })
    )
