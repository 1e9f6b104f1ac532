/**
 * What the umem daemon counts, in one page of memory that it shares with the guest's process: `status` and the report
 * read it without asking, and it is still there when the daemon is not. One writer, plain stores; every slot is a number.
 *
 * Hot path: no Effect per page.
 */
import type { Report } from "../Report.ts"

const slots = {
  /** Target pages received because they were asked for, and without. */
  onDemand: 0,
  background: 1,
  /** Part of both: came as one repeated byte. */
  fill: 2,
  /** Target pages removed before they were installed. */
  removed: 3,
  total: 4,
  bytesReceived: 5,
  bytesSent: 6,
  /** Page requests answered, and the microseconds their threads waited. */
  faults: 7,
  blockedMicros: 8,
  maxMicros: 9,
  /** Page requests not answered yet. */
  outstanding: 10,
  /** Milliseconds of the daemon's clock at the last byte from the source. */
  lastHeardMillis: 11,
  /** 1 once every host page is installed or removed; data that has only arrived is not enough. */
  complete: 12
} as const

export type Slot = keyof typeof slots

const HISTOGRAM_AT = 16
/** Sub-buckets of an octave: a percentile is at most 1/16 of its octave off, and interpolated within that. */
const PER_OCTAVE = 16
const OCTAVES = 28
const BUCKETS = PER_OCTAVE * OCTAVES

/** Bytes the counters take; a multiple of the page size. */
export const BYTES = 4096
/** Where the daemon leaves why it gave up: UTF-8, ended by a zero byte. The channel's ERROR has no room for it. */
const TEXT_AT = 3800

export class DaemonCounters {
  readonly #values: Float64Array
  readonly #text: Uint8Array
  constructor(buffer: ArrayBufferLike) {
    this.#values = new Float64Array(buffer, 0, HISTOGRAM_AT + BUCKETS)
    this.#text = new Uint8Array(buffer, TEXT_AT, BYTES - TEXT_AT)
  }
  setFailure(detail: string): void {
    this.#text.fill(0)
    new TextEncoder().encodeInto(detail, this.#text.subarray(0, this.#text.length - 1))
  }
  /** Why the daemon gave up; empty when it did not. */
  failure(): string {
    const end = this.#text.indexOf(0)
    return new TextDecoder().decode(this.#text.slice(0, end))
  }
  get(slot: Slot): number {
    return this.#values[slots[slot]]!
  }
  set(slot: Slot, value: number): void {
    this.#values[slots[slot]] = value
  }
  add(slot: Slot, n: number): void {
    this.#values[slots[slot]]! += n
  }
  /** One page request answered after `micros`. */
  fault(micros: number): void {
    this.add("faults", 1)
    this.add("blockedMicros", micros)
    if (micros > this.get("maxMicros")) this.set("maxMicros", micros)
    const bucket = Math.min(BUCKETS - 1, Math.max(0, Math.floor(Math.log2(Math.max(micros, 1)) * PER_OCTAVE)))
    this.#values[HISTOGRAM_AT + bucket]! += 1
  }
  /** The report's part about pages. */
  pages(): Report["pages"] {
    return {
      total: this.get("total"),
      onDemand: this.get("onDemand"),
      background: this.get("background"),
      fill: this.get("fill"),
      removed: this.get("removed")
    }
  }
  /** The report's part about page requests. */
  faults(): NonNullable<Report["faults"]> {
    const count = this.get("faults")
    return {
      count,
      p50Us: this.percentile(0.5),
      p90Us: this.percentile(0.9),
      p99Us: this.percentile(0.99),
      maxUs: count === 0 ? null : this.get("maxMicros"),
      blockedMs: this.get("blockedMicros") / 1000
    }
  }
  /** Page requests answered, by the octave of their microseconds: [0] up to 2, [1] up to 4, … without empty ones behind. */
  histogram(): Array<number> {
    const octaves: Array<number> = []
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.#values[HISTOGRAM_AT + bucket]!
      const octave = Math.floor(bucket / PER_OCTAVE)
      if (count > 0) octaves[octave] = (octaves[octave] ?? 0) + count
    }
    return Array.from(octaves, (count) => count ?? 0)
  }
  /** Target pages not received and not removed; one received may still wait to be installed. */
  missing(): number {
    return Math.max(0, this.get("total") - this.get("onDemand") - this.get("background") - this.get("removed"))
  }
  /** Whether the guest can do without its daemon. */
  complete(): boolean {
    return this.get("complete") === 1
  }
  /** Microseconds below which the fraction `q` of the faults were answered; null when there were none. */
  percentile(q: number): number | null {
    const count = this.get("faults")
    if (count === 0) return null
    const rank = q * count
    let seen = 0
    for (let i = 0; i < BUCKETS; i++) {
      const here = this.#values[HISTOGRAM_AT + i]!
      if (here > 0 && seen + here >= rank) {
        const within = (rank - seen) / here
        return Math.min(this.get("maxMicros"), 2 ** ((i + within) / PER_OCTAVE))
      }
      seen += here
    }
    return this.get("maxMicros")
  }
}
