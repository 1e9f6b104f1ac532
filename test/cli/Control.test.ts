import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit } from "effect"
import { existsSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { addon } from "./Descriptors.ts"
import { completed, FakeGuest, report, serving } from "./FakeGuest.ts"
import { directory, postcopy, start } from "./Postcopy.ts"

describe("the control socket", () => {
  it("belongs to its owner only, and goes with its server", async () => {
    const { close, path } = await serving()
    for (const socket of [path, `${path}.fd`]) assert.strictEqual(statSync(socket).mode & 0o777, 0o600)
    await close()
    assert.isFalse(existsSync(path))
    assert.isFalse(existsSync(`${path}.fd`))
  })

  it("in use is left alone", async () => {
    const { guest, path } = await serving()
    const { code, error } = await postcopy("run", "counter", "--control", path, "--json")
    assert.strictEqual(code, 1)
    assert.strictEqual(error.tag, "AddressInUse")
    assert.include(error.message, path)
    assert.strictEqual((await postcopy("status", "--control", path)).code, 0)
    assert.strictEqual(guest.quits, 0)
  })

  it("that takes one connection only does not lose it to a look", async () => {
    const path = join(directory(), "link")
    let connections = 0
    const server = createServer(() => connections++)
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const failure = await Effect.runPromise(Effect.flip(
      Effect.promise(() => new FakeGuest().serve(path)).pipe(
        Effect.catchDefect(Effect.fail)
      )
    ))
    assert.strictEqual((failure as { readonly tag: string }).tag, "AddressInUse")
    await new Promise((resolve) => server.close(resolve))
    assert.strictEqual(connections, 0)
  })

  it("that nobody listens at any more is replaced", async () => {
    const path = join(directory(), "control")
    for (const socket of [path, `${path}.fd`]) {
      addon.listenUnix(socket, 1).close() // leaves its file behind
      assert.isTrue(existsSync(socket))
    }
    const dead = await postcopy("status", "--control", path, "--json")
    assert.strictEqual(dead.code, 1)
    assert.include(dead.error.message, "its process is gone")
    await new FakeGuest().serve(path)
    assert.strictEqual((await postcopy("status", "--control", path)).code, 0)
  })

  it("does not take the place of something else", async () => {
    const path = join(directory(), "control")
    writeFileSync(path, "precious")
    const { code, error } = await postcopy("run", "counter", "--control", path, "--json")
    assert.strictEqual(code, 1)
    assert.include(error.message, "not a socket")
    assert.isTrue(existsSync(path))
  })
})

describe("a command", () => {
  it("tells the status", async () => {
    const { path } = await serving()
    const { code, objects } = await postcopy("status", "--control", path, "--json")
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects, [
      { role: "source", state: "running", transferred: 6, remaining: 250, total: 256, blockedMs: 0 }
    ])
    assert.include((await postcopy("status", "--control", path)).stdout, "6 of 256 pages")
  })

  it("watches until there is no more to see", async () => {
    const { guest, path } = await serving()
    guest.state = "postcopy"
    const watching = start(["status", "--watch", "--control", path, "--json"])
    watching.child.stdout!.once("data", () => guest.state = "completed")
    const { code, objects } = await watching.ended
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects.map(({ state }) => state), ["postcopy", "completed"])
  })

  it("watches until the process ends, which is no mistake", async () => {
    const { close, path } = await serving()
    const watching = start(["status", "--watch", "--control", path])
    watching.child.stdout!.once("data", () => void close())
    const { code, stderr } = await watching.ended
    assert.deepStrictEqual([code, stderr], [0, "the process has ended\n"])
  })

  it("at a socket that speaks otherwise says so", async () => {
    const path = join(directory(), "control")
    const server = createServer((socket) => void socket.on("error", () => {}).resume().end("220 mail.example.org\r\n"))
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const { code, error } = await postcopy("status", "--control", path, "--json")
    await new Promise((resolve) => server.close(resolve))
    assert.deepStrictEqual([code, error.tag], [1, "NoControl"])
    assert.include(error.message, path)
  })

  it("pauses, resumes, and hears why not", async () => {
    const { guest, path } = await serving()
    assert.strictEqual((await postcopy("pause", "--control", path)).code, 0)
    assert.strictEqual(guest.state, "paused")
    assert.strictEqual((await postcopy("resume", "--control", path)).code, 0)
    assert.strictEqual(guest.state, "running")
    const again = await postcopy("resume", "--control", path, "--json")
    assert.strictEqual(again.code, 1)
    assert.deepStrictEqual(again.error.tag, "Refused")
    assert.include(again.error.message, "not paused")
  })

  it("sets the limit and takes it away", async () => {
    const { guest, path } = await serving()
    await postcopy("set", "--control", path, "--max-bandwidth", "10M")
    assert.strictEqual(guest.bandwidth, 10 * 2 ** 20)
    await postcopy("set", "--control", path, "--max-bandwidth", "unlimited")
    assert.strictEqual(guest.bandwidth, undefined)
  })

  it("calls the guest with any JSON value and prints its answer", async () => {
    const { guest, path } = await serving()
    for (const value of [{ a: [1, "ä", null] }, true, 0, -1, "text", null]) {
      const { code, stdout } = await postcopy("call", "--control", path, "--json", JSON.stringify(value))
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(JSON.parse(stdout), { echo: value })
    }
    assert.deepStrictEqual(guest.calls, [{ a: [1, "ä", null] }, true, 0, -1, "text", null])
    assert.strictEqual((await postcopy("call", "--control", path, `{"op":"nothing"}`)).stdout, "null\n")
  })

  it("that the guest's handler throws at exits 1, once the guest has moved 70", async () => {
    const { guest, path } = await serving()
    const thrown = await postcopy("call", "--control", path, `{"op":"throw"}`, "--json")
    assert.strictEqual(thrown.code, 1)
    assert.include(thrown.error.message, "the guest does not like it")
    const circle = await postcopy("call", "--control", path, `{"op":"circle"}`, "--json")
    assert.strictEqual(circle.code, 1)
    assert.include(circle.error.message, "JSON")
    guest.state = "postcopy"
    const moved = await postcopy("call", "--control", path, "{}", "--json")
    assert.strictEqual(moved.code, 70)
    assert.include(moved.error.message, "the guest has moved")
  })

  it("that waits for an answer hears when the guest's process ends", async () => {
    const { close, guest, path } = await serving()
    const calling = start(["call", "--control", path, `{"op":"wait"}`, "--json"])
    while (guest.calls.length === 0) await new Promise(setImmediate)
    await close()
    const { code, error } = await calling.ended
    assert.strictEqual(code, 70)
    assert.strictEqual(error.tag, "ControlLost")
  })

  it("that waits for an answer can be interrupted", async () => {
    const { guest, path } = await serving()
    const calling = start(["call", "--control", path, `{"op":"wait"}`])
    while (guest.calls.length === 0) await new Promise(setImmediate)
    calling.child.kill("SIGINT")
    assert.strictEqual((await calling.ended).code, 130)
  })

  it("quits: returns when the control socket is gone", async () => {
    const { close, guest, path } = await serving()
    const quitting = start(["quit", "--control", path, "--json"])
    await completed(guest.quit)
    await close()
    const { code, objects } = await quitting.ended
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects, [{ event: "quit", owesPages: false }])
    assert.isFalse(existsSync(path))
  })

  it("quits a source that owes pages without waiting for them", async () => {
    const { guest, path } = await serving()
    guest.owesPages = true
    const { code, objects } = await postcopy("quit", "--control", path, "--json")
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects, [{ event: "quit", owesPages: true }])
  })
})

describe("migrate", () => {
  it("asks for what it was told, and prints the source's report", async () => {
    const { guest, path } = await serving()
    const cwd = directory()
    const migrating = start(
      ["migrate", "unix:a/../link", "--control", path, "--nobg", "--max-bandwidth", "1M", "--json"],
      { cwd }
    )
    const options = await completed(guest.asked)
    // A relative path is the command's, whatever the guest's process has for a working directory.
    assert.strictEqual(options.to, `unix:${join(cwd, "link")}`)
    assert.strictEqual(options.background, false)
    assert.strictEqual(options.maxBandwidth, 2 ** 20)
    Deferred.doneUnsafe(guest.completed, Exit.succeed(report))
    const { code, objects } = await migrating.ended
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects, [{ event: "completed", report }])
  })

  it("by default sends in the background and without limit", async () => {
    const { guest, path } = await serving()
    const migrating = start(["migrate", "tcp:localhost:1", "--control", path])
    const options = await completed(guest.asked)
    assert.deepStrictEqual([options.background, options.maxBandwidth], [true, undefined])
    Deferred.doneUnsafe(guest.completed, Exit.succeed(report))
    assert.include((await migrating.ended).stdout, "250 in the background")
  })

  it("cancelled by another command exits 75", async () => {
    const { guest, path } = await serving()
    const migrating = start(["migrate", "tcp:localhost:1", "--control", path, "--json"])
    await completed(guest.asked)
    assert.strictEqual((await postcopy("cancel", "--control", path)).code, 0)
    const { code, error } = await migrating.ended
    assert.strictEqual(code, 75)
    assert.strictEqual(error.tag, "Cancelled")
    assert.include(error.message, "the guest still runs at the source")
  })

  it("interrupted before the switchover cancels, and sees the guest running before it ends", async () => {
    const { guest, path } = await serving()
    const migrating = start(["migrate", "tcp:localhost:1", "--control", path])
    await completed(guest.asked)
    migrating.child.kill("SIGINT")
    const { code, stderr } = await migrating.ended
    assert.strictEqual(code, 130)
    assert.include(stderr, "cancelled")
    assert.strictEqual(guest.state, "running")
  })

  it("killed before the switchover cancels all the same", async () => {
    const { guest, path } = await serving()
    const migrating = start(["migrate", "tcp:localhost:1", "--control", path])
    await completed(guest.asked)
    migrating.child.kill("SIGKILL")
    await completed(guest.cancelled)
    assert.strictEqual(guest.state, "running")
  })

  it("interrupted after the switchover leaves it running", async () => {
    const { guest, path } = await serving()
    const migrating = start(["migrate", "tcp:localhost:1", "--control", path])
    await completed(guest.asked)
    guest.state = "postcopy"
    migrating.child.kill("SIGINT")
    const { code, stderr } = await migrating.ended
    assert.strictEqual(code, 130)
    assert.include(stderr, "the migration goes on")
    assert.isUndefined(guest.outcome)
    Deferred.doneUnsafe(guest.completed, Exit.succeed(report))
    while (guest.outcome === undefined) await new Promise(setImmediate)
    assert.isTrue(Exit.isSuccess(guest.outcome))
  })

  it.each([["exec:cat", 69], ["tcp:x", 1]] as const)("to %s does not even ask", async (uri, code) => {
    const { guest, path } = await serving()
    assert.strictEqual((await postcopy("migrate", uri, "--control", path)).code, code)
    assert.strictEqual(guest.state, "running")
  })
})
