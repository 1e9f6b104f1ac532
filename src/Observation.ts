/**
 * All that one side of a migration can tell about itself at one moment, for the live page, the report and the terminal.
 * Taking one costs the guest nothing: the numbers are counted anyway, and the map of a destination's memory is read from
 * memory that the umem daemon shares.
 */
import * as Schema from "effect/Schema"
import { Faults, Pages, Status } from "./Report.ts"
import { Mark } from "./Timeline.ts"

/**
 * The memory in runs of equal length, over all blocks in their order. `counts`, base64 of bytes or little-endian 16- or
 * 32-bit numbers (`bits`), has for each run how many of its pages are requested, received on demand, received in the
 * background, removed; the rest is missing. At a source: sent on demand and in the background are one, the third.
 */
export const Cells = Schema.Struct({
  total: Schema.Finite,
  pagesPerCell: Schema.Finite,
  bits: Schema.Literals([8, 16, 32]),
  counts: Schema.String
})
export type Cells = typeof Cells.Type

export const Observation = Schema.Struct({
  /** Of the migration: this side's own, unless both were given the same one. */
  id: Schema.String,
  /** Milliseconds since the epoch. */
  at: Schema.Finite,
  status: Status,
  memoryBytes: Schema.Finite,
  pageSize: Schema.Finite,
  blocks: Schema.Array(Schema.Struct({ idstr: Schema.String, length: Schema.Finite })),
  pages: Pages,
  bytesSent: Schema.Finite,
  bytesReceived: Schema.Finite,
  timeline: Schema.Array(Mark),
  /** Milliseconds; null before it is known. */
  downtimeMs: Schema.NullOr(Schema.Finite),
  /** Destination: page requests on their way. */
  inFlight: Schema.Finite,
  faults: Schema.optionalKey(Faults),
  /** Destination: page requests by the octave of the microseconds they took: [0] up to 2 µs, [1] up to 4, … */
  histogram: Schema.optionalKey(Schema.Array(Schema.Finite)),
  /** Source: the limit in bytes per second, null is none; whether pages are sent that nobody asked for. */
  maxBandwidth: Schema.NullOr(Schema.Finite),
  background: Schema.Boolean,
  cells: Schema.optionalKey(Cells)
})
export type Observation = typeof Observation.Type
