import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { request } from "node:http"
import { onTestFinished } from "vitest"
import * as Recorder from "../../src/web/Recorder.ts"
import { type Action, serve } from "../../src/web/WebServer.ts"
import { arrivedSoFar } from "./Pictures.ts"

const serving = async (host = "127.0.0.1") => {
  const scope = Scope.makeUnsafe()
  onTestFinished(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  const asked: Array<Action> = []
  const recorder = await Effect.runPromise(Recorder.make())
  const { url } = await Effect.runPromise(
    Effect.gen(function*() {
      yield* recorder.attach(Effect.succeed(arrivedSoFar(42)))
      return yield* serve({
        host,
        port: 0,
        recorder,
        title: "a <guest> moves",
        about: [["guest", "</script><script>alert(1)</script>"]],
        act: (action) =>
          Effect.sync(() => {
            asked.push(action)
            return "done"
          })
      })
    }).pipe(Scope.provide(scope))
  )
  const key = new URL(url).searchParams.get("key")!
  /** With headers that `fetch` would set itself. */
  const ask = (method: string, path: string, headers: Record<string, string> = {}, body?: string) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const sent = request(new URL(path, url), { method, headers }, (response) => {
        let text = ""
        response.on("data", (chunk: Buffer) => text += chunk.toString())
        response.on("end", () => resolve({ status: response.statusCode!, text }))
      }).on("error", reject)
      sent.end(body)
    })
  return { url, key, recorder, asked, ask }
}

describe("the web server", () => {
  it("serves one document that needs nothing from elsewhere, and escapes what it shows", async () => {
    const { ask } = await serving()
    const { status, text } = await ask("GET", "/")
    assert.strictEqual(status, 200)
    assert.notMatch(text, /(?:src|href)=["'](?!data:|#)/)
    assert.notMatch(text, /^import |@import|<\/script><script>alert/m)
    assert.include(text, "\\u003c/script>")
  })

  it("sends pictures as server-sent events, up to the last", async () => {
    const { ask, recorder } = await serving()
    const events = ask("GET", "/events")
    await Effect.runPromise(recorder.seen)
    await Effect.runPromise(recorder.finish({ error: "over" }))
    const pictures = (await events).text.trim().split("\n\n").map((event) => {
      assert.match(event, /^event: picture\ndata: \{/)
      return JSON.parse(event.slice(event.indexOf("{")))
    })
    assert.deepInclude(pictures.at(-1), { ended: true, error: "over" })
    assert.strictEqual(pictures.at(-1).sides.destination.pages.background, 42)
  })

  it("changes nothing without the key, and does not give it to who has not got it", async () => {
    const { ask, asked, key, url } = await serving()
    const cancel = JSON.stringify({ action: "cancel" })
    for (const headers of [{}, { "x-postcopy-token": "x".repeat(key.length) }, { "x-postcopy-token": "" }]) {
      assert.strictEqual((await ask("POST", "/control", headers, cancel)).status, 403)
    }
    assert.deepStrictEqual(asked, [])
    assert.notInclude((await ask("GET", "/")).text, key)
    assert.notInclude((await ask("GET", "/?key=guessed")).text, key)
    assert.include((await ask("GET", url)).text, key)
    const { status, text } = await ask("POST", "/control", {
      "x-postcopy-token": key,
      "content-length": String(cancel.length)
    }, cancel)
    assert.deepStrictEqual([status, JSON.parse(text)], [200, { message: "done" }])
    assert.deepStrictEqual(asked, [{ action: "cancel" }])
  })

  it.each([
    ["no JSON", "cancel"],
    ["another action", `{"action":"quit"}`],
    ["a rate below one", `{"action":"bandwidth","bytesPerSecond":0}`],
    ["a rate that is a text", `{"action":"bandwidth","bytesPerSecond":"1M"}`],
    ["no value", `{"action":"background"}`]
  ])("refuses %s", async (_, body) => {
    const { ask, asked, key } = await serving()
    const headers = { "x-postcopy-token": key, "content-length": String(body.length) }
    assert.strictEqual((await ask("POST", "/control", headers, body)).status, 400)
    assert.deepStrictEqual(asked, [])
  })

  it("refuses a request that is too long before it is read", async () => {
    const { ask, key } = await serving()
    const body = JSON.stringify({ action: "cancel", more: "x".repeat(2000) })
    const headers = { "x-postcopy-token": key, "content-length": String(body.length) }
    assert.strictEqual((await ask("POST", "/control", headers, body)).status, 413)
  })

  it("answers to the names of the loopback interface only, so that no other site's page can be this one", async () => {
    const { ask } = await serving()
    assert.strictEqual((await ask("GET", "/", { host: "evil.example:80" })).status, 421)
    for (const host of ["localhost:1", "127.0.0.1:1", "[::1]:1"]) {
      assert.strictEqual((await ask("GET", "/", { host })).status, 200)
    }
  })

  it("has nothing at any other place", async () => {
    const { ask } = await serving()
    for (const [method, path] of [["GET", "/../../etc/passwd"], ["PUT", "/"], ["GET", "/control"]] as const) {
      assert.strictEqual((await ask(method, path)).status, 404)
    }
  })
})
