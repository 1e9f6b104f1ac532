/** Telemetry on its way out: real commands, a collector of the test's own, a scrape. */
import { assert, describe, it } from "@effect/vitest"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { onTestFinished } from "vitest"
import { directory, start } from "../cli/Postcopy.ts"
import { canReceive, why } from "../cli/Shells.ts"

const collector = async () => {
  const got: Array<{ path: string; body: any }> = []
  const server = createServer((request, response) => {
    let text = ""
    request.on("data", (chunk: Buffer) => text += chunk.toString())
    request.on("end", () => {
      got.push({ path: request.url!, body: JSON.parse(text) })
      response.writeHead(200, { "content-type": "application/json" }).end("{}")
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, got }
}

const valueOf = (attributes: ReadonlyArray<any>, key: string) =>
  attributes.find((attribute) => attribute.key === key)?.value?.stringValue

describe.skipIf(!canReceive)(`exports${why}`, { timeout: 120_000 }, () => {
  it("traces and metrics of both sides reach a collector before the processes end", async () => {
    const { got, url } = await collector()
    const { code, stderr } = await start(["demo", "--guest", "counter", "--memory", "4", "--otlp", url, "--json"]).ended
    assert.strictEqual(code, 0, stderr)
    const resources = got.filter(({ path }) => path === "/v1/traces").flatMap(({ body }) => body.resourceSpans)
    for (const { resource } of resources) assert.strictEqual(valueOf(resource.attributes, "service.name"), "postcopy")
    const spans = resources.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope: any) => scope.spans))
    for (
      const [role, phases] of [["source", ["connect", "announce", "switchover", "pages"]], ["destination", [
        "arrive",
        "switchover",
        "pages"
      ]]] as const
    ) {
      const root = spans.find(({ attributes, name }) =>
        name === "postcopy.migration" && valueOf(attributes, "postcopy.role") === role
      )
      assert.isDefined(root, `no span of the ${role}`)
      assert.match(valueOf(root.attributes, "postcopy.migration.id"), /^[0-9a-f-]{36}$/)
      const children = spans.filter(({ parentSpanId }) => parentSpanId === root.spanId)
      assert.includeMembers(children.map(({ name }) => name), phases.map((phase) => `postcopy.${phase}`))
      for (const { endTimeUnixNano, startTimeUnixNano, traceId } of children) {
        assert.strictEqual(traceId, root.traceId)
        assert.isTrue(BigInt(startTimeUnixNano) <= BigInt(endTimeUnixNano))
      }
    }
    const names = got.filter(({ path }) => path === "/v1/metrics").flatMap(({ body }) => body.resourceMetrics)
      .flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }: any) => metrics.map(({ name }: any) => name)))
    assert.includeMembers(names, ["postcopy_pages_total", "postcopy_migrations_total", "postcopy_downtime_seconds"])
  })

  it("Prometheus finds the state of now", async () => {
    const control = join(directory(), "control")
    const running = start(["run", "counter", "--memory", "4", "--control", control, "--metrics", "0", "--json"])
    const { url } = await running.event("metrics")
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
    await running.event("running")
    const response = await fetch(url)
    assert.match(response.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/)
    assert.match(await response.text(), /^postcopy_pages_remaining\{role="source"\} 1024$/m)
    assert.strictEqual((await fetch(url.replace("/metrics", "/"))).status, 404)
    assert.strictEqual((await start(["quit", "--control", control]).ended).code, 0)
    assert.strictEqual((await running.ended).code, 0)
  })

  it("a collector that is not there keeps nobody from ending", async () => {
    const args = ["demo", "--guest", "counter", "--memory", "4", "--otlp", "http://127.0.0.1:9", "--json"]
    const { code, objects, stderr } = await start(args).ended
    assert.strictEqual(code, 0, stderr)
    assert.isTrue(objects.at(-1).verified)
  })

  it.each([
    [["run", "counter", "--otlp", "127.0.0.1:4318"], "http(s) URL of a collector"],
    [["run", "counter", "--metrics", "no"], "HOST:PORT"]
  ])("%j is refused", async (args, words) => {
    const { code, stderr } = await start(args).ended
    assert.strictEqual(code, 1)
    assert.include(stderr, words)
  })
})
