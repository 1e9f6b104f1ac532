/** Observations as tests need them. */
import type { Observation } from "../../src/Observation.ts"
import type { Sides } from "../../src/web/Picture.ts"

export const observation = (change: Partial<Observation> = {}): Observation => ({
  id: "a-migration",
  at: 1_000,
  status: { role: "destination", state: "running", transferred: 3, remaining: 5, total: 8, blockedMs: 1.5 },
  memoryBytes: 8 * 4096,
  pageSize: 4096,
  blocks: [{ idstr: "pc.ram", length: 8 * 4096 }],
  pages: { total: 8, onDemand: 1, background: 2, fill: 0, removed: 0 },
  bytesSent: 20,
  bytesReceived: 3 * 4096,
  timeline: [{ phase: "listening", at: 0 }, { phase: "arriving", at: 900 }, { phase: "running", at: 930 }],
  downtimeMs: 30,
  inFlight: 1,
  faults: { count: 1, p50Us: 80, p90Us: 80, p99Us: 80, maxUs: 80, blockedMs: 0.08 },
  histogram: [0, 0, 0, 0, 0, 0, 1],
  maxBandwidth: null,
  background: true,
  cells: { total: 8, pagesPerCell: 4, bits: 8, counts: Buffer.from([1, 1, 2, 0, 0, 0, 0, 0]).toString("base64") },
  ...change
})

/** A destination at which so many pages have arrived. */
export const arrivedSoFar = (background: number): Sides => ({
  destination: observation({ at: background, pages: { total: 1e9, onDemand: 0, background, fill: 0, removed: 0 } })
})
