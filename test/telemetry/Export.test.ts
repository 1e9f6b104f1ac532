/** Telemetry on its way out: real commands, a collector of the test's own, a scrape. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
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
  it("traces, metrics and logs of both sides reach a collector before the processes end", async () => {
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
    const ids = spans.filter(({ name }) => name === "postcopy.migration").map(({ attributes }) =>
      valueOf(attributes, "postcopy.migration.id")
    )
    assert.deepStrictEqual([ids.length, new Set(ids).size], [2, 1], "the two sides of a demo are one migration")
    const logs = got.filter(({ path }) => path === "/v1/logs").flatMap(({ body }) => body.resourceLogs)
      .flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }: any) => logRecords))
    for (const role of ["source", "destination"]) {
      const told = logs.filter(({ attributes }) => valueOf(attributes, "role") === role)
      assert.includeMembers(told.map(({ body }) => body.stringValue), ["migration begins", "migration completed"])
      for (const { attributes } of told) assert.strictEqual(valueOf(attributes, "migration"), ids[0])
    }
    const names = got.filter(({ path }) => path === "/v1/metrics").flatMap(({ body }) => body.resourceMetrics)
      .flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }: any) => metrics.map(({ name }: any) => name)))
    assert.includeMembers(names, ["postcopy_pages_total", "postcopy_migrations_total", "postcopy_downtime_seconds"])
  })

  it("one name in the environment is in the logs and reports of both sides", async () => {
    const folder = directory()
    const [here, there, uri] = [join(folder, "here"), join(folder, "there"), `unix:${join(folder, "link")}`]
    const env = { POSTCOPY_MIGRATION_ID: "evacuation-42:vm.7" }
    const logging = ["--json", "--log-level", "debug"]
    const report = (side: string) => join(folder, `${side}.json`)
    const running = start(["run", "counter", "--memory", "4", "--control", here, ...logging])
    const receiving = start(
      ["receive", "counter", uri, "--memory", "4", "--control", there, "--report", report("destination"), ...logging],
      { env }
    )
    await Promise.all([running.event("running"), receiving.event("listening")])
    const migrating = start(["migrate", uri, "--control", here, "--report", report("source"), "--json"], { env })
    assert.strictEqual((await migrating.ended).code, 0)
    await receiving.event("completed")
    for (const [control, { ended }, role] of [[here, running, "source"], [there, receiving, "destination"]] as const) {
      assert.strictEqual((await start(["quit", "--control", control]).ended).code, 0)
      const logs = (await ended).stderr.split("\n").filter((line) => line.startsWith("{")).map((line) =>
        JSON.parse(line)
      )
      assert.deepStrictEqual(
        logs.filter(({ annotations }) => annotations?.migration !== undefined).map(({ annotations, message }) => [
          message,
          annotations.migration,
          annotations.role
        ]),
        ["migration begins", "migration completed"].map((message) => [message, env.POSTCOPY_MIGRATION_ID, role])
      )
      assert.strictEqual(
        JSON.parse(readFileSync(report(role), "utf8")).sides[role].id,
        env.POSTCOPY_MIGRATION_ID
      )
    }
  })

  it.each(["two words", "<b>", "x".repeat(129)])("%j is no name of a migration", async (name) => {
    const folder = directory()
    for (
      const args of [["migrate", "unix:x", "--control", "x"], ["receive", "counter", `unix:${join(folder, "link")}`]]
    ) {
      const { code, stderr } = await start(args, { env: { POSTCOPY_MIGRATION_ID: name } }).ended
      assert.strictEqual(code, 1)
      assert.include(stderr, "POSTCOPY_MIGRATION_ID")
    }
  })

  it("what a collector is told is not shown on stderr, unless it is asked for", async () => {
    const { url } = await collector()
    const logsOf = async (...level: ReadonlyArray<string>) => {
      const folder = directory()
      const [here, to] = [join(folder, "here"), `unix:${join(folder, "nobody")}`]
      const running = start(["run", "counter", "--memory", "4", "--control", here, "--otlp", url, "--json", ...level])
      await running.event("running")
      assert.strictEqual((await start(["migrate", to, "--control", here]).ended).code, 75)
      assert.strictEqual((await start(["quit", "--control", here]).ended).code, 0)
      const lines = (await running.ended).stderr.split("\n").filter((line) => line.startsWith("{"))
      return lines.map((line) => JSON.parse(line)).filter((line) => "annotations" in line).map(({ level, message }) => [
        level,
        Array.isArray(message) ? message[0] : message
      ])
    }
    assert.deepStrictEqual(await logsOf(), [])
    assert.deepStrictEqual(await logsOf("--log-level", "debug"), [
      ["DEBUG", "migration begins"],
      ["DEBUG", "migration failed"]
    ])
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
