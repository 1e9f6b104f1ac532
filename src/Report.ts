/** What a migration reports when it ends, and what `status` answers while it lasts. Field names are part of the interface. */
import * as Schema from "effect/Schema"

export const Pages = Schema.Struct({
  /** All target pages of the guest. */
  total: Schema.Number,
  /** Pages sent (source) or received (destination) because they were asked for. */
  onDemand: Schema.Number,
  /** Pages sent or received without being asked for. */
  background: Schema.Number,
  /** Pages that travelled as one repeated byte; part of the two above. */
  fill: Schema.Number,
  /** Pages given back by the guest before they were installed. */
  removed: Schema.Number
})

/** Remote page faults as the destination saw them; percentiles are null when there were none. Microseconds. */
export const Faults = Schema.Struct({
  count: Schema.Number,
  p50Us: Schema.NullOr(Schema.Number),
  p90Us: Schema.NullOr(Schema.Number),
  p99Us: Schema.NullOr(Schema.Number),
  maxUs: Schema.NullOr(Schema.Number),
  blockedMs: Schema.Number
})

export const Report = Schema.Struct({
  role: Schema.Literals(["source", "destination"]),
  state: Schema.Literals(["completed", "failed", "cancelled"]),
  dialect: Schema.Literal("umem"),
  memoryBytes: Schema.Number,
  pageSize: Schema.Number,
  pages: Pages,
  /** Both directions. */
  bytesOnWire: Schema.Number,
  downtimeMs: Schema.Number,
  totalMs: Schema.Number,
  throughputMiBps: Schema.Number,
  /** Destination only. */
  faults: Schema.optionalKey(Faults),
  /** CLOCK_MONOTONIC of the guest's last step (source) or first step (destination), nanoseconds as a decimal string. */
  guestStepNanos: Schema.optionalKey(Schema.String),
  /** Destination only: pages not yet there when the guest gave its first answer. */
  missingAtFirstAnswer: Schema.optionalKey(Schema.Number)
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
  transferred: Schema.Number,
  remaining: Schema.Number,
  total: Schema.Number,
  blockedMs: Schema.Number,
  /** Why the last migration failed, if one did. */
  error: Schema.optionalKey(Schema.String)
})
export type Status = typeof Status.Type
