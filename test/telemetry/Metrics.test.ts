import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric } from "effect"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Metrics from "../../src/telemetry/Metrics.ts"
import { observation } from "../web/Pictures.ts"

/** With a registry of its own; the lines of what Prometheus would get. */
const scraped = (body: Effect.Effect<void>) =>
  Effect.andThen(body, PrometheusMetrics.format()).pipe(
    Effect.map((text) => text.split("\n")),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )

describe("metrics of a migration", () => {
  it.effect("count only what is new in each observation", () =>
    Effect.gen(function*() {
      const lines = yield* scraped(Effect.gen(function*() {
        const count = Metrics.make()
        const first = observation()
        yield* count(first)
        yield* count(first)
        yield* count(
          observation({ pages: { total: 8, onDemand: 3, background: 4, fill: 0, removed: 1 }, bytesReceived: 20_000 })
        )
      }))
      for (
        const line of [
          "# TYPE postcopy_pages_total counter",
          "postcopy_pages_total{role=\"destination\",kind=\"on_demand\"} 3",
          "postcopy_pages_total{role=\"destination\",kind=\"background\"} 4",
          "postcopy_pages_total{role=\"destination\",kind=\"removed\"} 1",
          "postcopy_link_bytes_total{role=\"destination\",direction=\"received\"} 20000",
          "postcopy_link_bytes_total{role=\"destination\",direction=\"sent\"} 20",
          "postcopy_page_requests_total{role=\"destination\"} 1",
          "postcopy_page_requests_in_flight{role=\"destination\"} 1",
          "postcopy_pages_remaining{role=\"destination\"} 5",
          "postcopy_downtime_seconds_count{role=\"destination\"} 1",
          "postcopy_downtime_seconds_sum{role=\"destination\"} 0.03"
        ]
      ) assert.include(lines, line)
      assert.isNotEmpty(
        lines.filter((line) => /^postcopy_page_request_seconds\{.*quantile="0.99"\} 0.00008$/.test(line))
      )
    }))

  it.effect("go on with the next migration of the same guest, and tell outcomes", () =>
    Effect.gen(function*() {
      const done = (id: string, phase: "completed" | "failed") =>
        observation({
          id,
          status: { role: "source", state: phase, transferred: 3, remaining: 0, total: 8, blockedMs: 0 },
          timeline: [{ phase: "connecting", at: 1 }, { phase, at: 2 }]
        })
      const lines = yield* scraped(Effect.gen(function*() {
        const count = Metrics.make()
        for (const [id, phase] of [["a", "failed"], ["a", "failed"], ["b", "completed"], ["c", "completed"]] as const) {
          yield* count(done(id, phase))
        }
      }))
      assert.include(lines, "postcopy_migrations_total{role=\"source\",outcome=\"completed\"} 2")
      assert.include(lines, "postcopy_migrations_total{role=\"source\",outcome=\"failed\"} 1")
      assert.include(lines, "postcopy_pages_total{role=\"source\",kind=\"background\"} 6")
    }))
})
