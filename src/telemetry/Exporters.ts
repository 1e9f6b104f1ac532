/**
 * Ways out for metrics, spans and logs: OTLP over HTTP to a collector, and a page for Prometheus to scrape. A program that
 * has telemetry of its own needs neither: it exports Effect's registry and tracer as it does for everything else.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Otlp from "effect/observability/Otlp"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import type * as Scope from "effect/Scope"
import { createServer } from "node:http"
import { hostname } from "node:os"

/** Sends everything to the collector at `baseUrl` (`/v1/traces`, `/v1/metrics`, `/v1/logs`), the rest at the end. */
export const otlp = (baseUrl: string, version: string): Layer.Layer<never> =>
  Otlp.layerJson({
    baseUrl,
    resource: {
      serviceName: "postcopy",
      serviceVersion: version,
      attributes: { "host.name": hostname(), "process.pid": process.pid }
    },
    metricsExportInterval: "5 seconds",
    // Whoever ends must not wait long for a collector that is not there.
    shutdownTimeout: "2 seconds"
  }).pipe(Layer.provide(FetchHttpClient.layer))

/** Serves `/metrics`; `refresh` comes before each answer. Fails with the system's error. */
export const prometheus = Effect.fnUntraced(
  function*(
    options: { readonly host: string; readonly port: number; readonly refresh: Effect.Effect<void> }
  ): Effect.fn.Return<{ readonly url: string }, NodeJS.ErrnoException, Scope.Scope> {
    const { host, port, refresh } = options
    const server = yield* NodeHttpServer.make(createServer, { host, port, gracefulShutdownTimeout: "1 second" }).pipe(
      Effect.mapError((error) => error.cause as NodeJS.ErrnoException)
    )
    yield* server.serve(
      Effect.gen(function*() {
        const { method, url } = yield* HttpServerRequest.HttpServerRequest
        if (method !== "GET" || url !== "/metrics") return HttpServerResponse.text("see /metrics\n", { status: 404 })
        yield* refresh
        return HttpServerResponse.text(yield* PrometheusMetrics.format(), { contentType: "text/plain; version=0.0.4" })
      }).pipe(Effect.withTracerEnabled(false))
    )
    const bound = server.address as { readonly port: number }
    return { url: `http://${host.includes(":") ? `[${host}]` : host}:${bound.port}/metrics` }
  }
)
