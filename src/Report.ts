/** What a migration reports when it ends, and what `status` answers while it lasts. Field names are part of the interface. */
import * as Schema from "effect/Schema"

export const Pages = Schema.Struct({
  /** All target pages of the guest. */
  total: Schema.Finite,
  /** Pages sent (source) or received (destination) because they were asked for. */
  onDemand: Schema.Finite,
  /** Pages sent or received without being asked for. */
  background: Schema.Finite,
  /** Pages that travelled as one repeated byte; part of the two above. */
  fill: Schema.Finite,
  /** Pages given back by the guest before they were installed. */
  removed: Schema.Finite
})

/** Remote page faults as the destination saw them; percentiles are null when there were none. Microseconds. */
export const Faults = Schema.Struct({
  count: Schema.Finite,
  p50Us: Schema.NullOr(Schema.Finite),
  p90Us: Schema.NullOr(Schema.Finite),
  p99Us: Schema.NullOr(Schema.Finite),
  maxUs: Schema.NullOr(Schema.Finite),
  blockedMs: Schema.Finite
})

export const Report = Schema.Struct({
  role: Schema.Literals(["source", "destination"]),
  state: Schema.Literals(["completed", "failed", "cancelled"]),
  dialect: Schema.Literal("umem"),
  memoryBytes: Schema.Finite,
  pageSize: Schema.Finite,
  pages: Pages,
  /** Both directions. */
  bytesOnWire: Schema.Finite,
  downtimeMs: Schema.Finite,
  totalMs: Schema.Finite,
  throughputMiBps: Schema.Finite,
  /** Destination only. */
  faults: Schema.optionalKey(Faults),
  /** CLOCK_MONOTONIC of the guest's last step (source) or first step (destination), nanoseconds as a decimal string. */
  guestStepNanos: Schema.optionalKey(Schema.String),
  /** Destination only: pages not yet there when the guest gave its first answer. */
  missingAtFirstAnswer: Schema.optionalKey(Schema.Finite)
})
export type Report = typeof Report.Type

/**
 * State of a guest and its migration. Source: running, paused, migrating (before the latch), postcopy (after it),
 * completed, failed. Destination: listening, incoming, running, paused, stalled (the peer is silent), completed, failed.
 */
export const State = Schema.Literals([
  "running",
  "paused",
  "migrating",
  "postcopy",
  "listening",
  "incoming",
  "stalled",
  "completed",
  "failed"
])
export type State = typeof State.Type

/** Pages, except `blockedMs`: milliseconds the guest's threads waited for pages. */
export const Status = Schema.Struct({
  role: Schema.Literals(["source", "destination"]),
  state: State,
  transferred: Schema.Finite,
  remaining: Schema.Finite,
  total: Schema.Finite,
  blockedMs: Schema.Finite,
  /** Why the last migration failed, if one did. */
  error: Schema.optionalKey(Schema.String)
})
export type Status = typeof Status.Type
