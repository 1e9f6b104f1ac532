/**
 * The metrics of a guest's migrations, in Effect's registry: whoever exports that, by OTLP, as Prometheus or by a program's
 * own means, exports these. They are taken from observations, a few numbers now and then; no migration waits for them and
 * no page is counted here.
 *
 * Names follow Prometheus: base units, `_total` for what only grows. Every metric has the label `role`.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { Observation } from "../Observation.ts"
import { isOver, type Phase } from "../Timeline.ts"

const counter = (name: string, description: string) => Metric.counter(name, { description, incremental: true })
const gauge = (name: string, description: string) => Metric.gauge(name, { description })

export const migrations = counter("postcopy_migrations_total", "Migrations that ended, by outcome")
export const pages = counter("postcopy_pages_total", "Guest pages sent or received, by kind")
export const bytes = counter("postcopy_link_bytes_total", "Bytes on the link after the switchover, by direction")
export const requests = counter("postcopy_page_requests_total", "Page requests answered")
export const blocked = counter("postcopy_guest_blocked_seconds_total", "Time the guest's threads waited for pages")
export const remaining = gauge("postcopy_pages_remaining", "Guest pages that still have to be sent or received")
export const inFlight = gauge("postcopy_page_requests_in_flight", "Page requests not answered yet")
export const latency = gauge("postcopy_page_request_seconds", "Time to answer a page request, by quantile")
export const limit = gauge("postcopy_bandwidth_limit_bytes_per_second", "Limit of the source; 0 is none")
export const downtime = Metric.histogram("postcopy_downtime_seconds", {
  description: "From the guest's pause to the switchover (source), from the first byte to its resumption (destination)",
  boundaries: Metric.exponentialBoundaries({ start: 0.001, factor: 2, count: 14 })
})

/** What has been counted already. */
interface Counted {
  readonly id: string
  readonly onDemand: number
  readonly background: number
  readonly removed: number
  readonly sent: number
  readonly received: number
  readonly requests: number
  readonly blockedMs: number
  readonly outcome: Phase | undefined
  readonly downtime: boolean
}

const fresh = (id: string): Counted => ({
  id,
  onDemand: 0,
  background: 0,
  removed: 0,
  sent: 0,
  received: 0,
  requests: 0,
  blockedMs: 0,
  outcome: undefined,
  downtime: false
})

const countedOf = ({ bytesReceived, bytesSent, downtimeMs, faults, id, pages, timeline }: Observation): Counted => ({
  id,
  onDemand: pages.onDemand,
  background: pages.background,
  removed: pages.removed,
  sent: bytesSent,
  received: bytesReceived,
  requests: faults?.count ?? 0,
  blockedMs: faults?.blockedMs ?? 0,
  outcome: timeline.findLast(({ phase }) => isOver(phase))?.phase,
  downtime: downtimeMs !== null
})

/** Takes observations of one guest, one after the other, and counts what is new in each. */
export const make = (): (observation: Observation) => Effect.Effect<void> => {
  let before: Counted | undefined
  return (observation) =>
    Effect.gen(function*() {
      const { faults, status: { role } } = observation
      const now = countedOf(observation)
      const old = before?.id === now.id ? before : fresh(now.id)
      before = now
      const add = (metric: Metric.Counter<number>, labels: Record<string, string>, from: number, to: number) =>
        to > from ? Metric.update(Metric.withAttributes(metric, { role, ...labels }), to - from) : Effect.void
      const set = (metric: Metric.Gauge<number>, value: number, labels: Record<string, string> = {}) =>
        Metric.update(Metric.withAttributes(metric, { role, ...labels }), value)

      yield* add(pages, { kind: "on_demand" }, old.onDemand, now.onDemand)
      yield* add(pages, { kind: "background" }, old.background, now.background)
      yield* add(pages, { kind: "removed" }, old.removed, now.removed)
      yield* add(bytes, { direction: "sent" }, old.sent, now.sent)
      yield* add(bytes, { direction: "received" }, old.received, now.received)
      yield* add(requests, {}, old.requests, now.requests)
      yield* add(blocked, {}, old.blockedMs / 1000, now.blockedMs / 1000)
      yield* set(remaining, observation.status.remaining)
      if (role === "source") yield* set(limit, observation.maxBandwidth ?? 0)
      if (faults !== undefined) {
        yield* set(inFlight, observation.inFlight)
        for (
          const [quantile, micros] of [["0.5", faults.p50Us], ["0.9", faults.p90Us], ["0.99", faults.p99Us]] as const
        ) {
          if (micros !== null) yield* set(latency, micros / 1e6, { quantile })
        }
      }
      if (now.downtime && !old.downtime) {
        yield* Metric.update(Metric.withAttributes(downtime, { role }), observation.downtimeMs! / 1000)
      }
      if (now.outcome !== undefined && old.outcome === undefined) {
        yield* add(migrations, { outcome: now.outcome }, 0, 1)
      }
    })
}
