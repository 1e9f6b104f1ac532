// Environments that end with things open: worker threads in every manner, and whole processes.
import { spawnSync } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import { Worker } from "node:worker_threads"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Bursts } from "./Bursts.ts"
import type { Scenario } from "./EnvironmentWorker.ts"
import { available, guest, P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"

const { Region } = Uffd

const ESTALE = -116

const openFiles = (): number => fs.readdirSync("/proc/self/fd").length

const start = (scenario: Scenario, token?: bigint) => {
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL("./EnvironmentWorker.ts", import.meta.url), {
    workerData: { scenario, token, stop }
  })
  return { worker, stop, exited: new Promise<number>((resolve) => worker.once("exit", resolve)) }
}

/** Starts a thread with nothing open at its end, so that what Node opens once for all threads is open. */
const warmUp = async (): Promise<number> => {
  const { worker, exited } = start("be terminated with everything open")
  await once(worker, "message")
  await worker.terminate()
  await exited
  return openFiles()
}

describe("the end of a worker thread", () => {
  it("by process.exit closes everything and does not abort", async () => {
    const before = await warmUp()
    assert.strictEqual(await start("exit with everything open").exited, 7)
    assert.strictEqual(openFiles(), before)
  })

  it("by termination closes everything and does not abort", async () => {
    const before = await warmUp()
    for (let i = 0; i < 3; i++) {
      const { worker, exited } = start("be terminated with everything open")
      await once(worker, "message")
      await worker.terminate()
      await exited
    }
    assert.strictEqual(openFiles(), before)
  })

  it("by termination in the midst of a callback closes everything and does not abort", async () => {
    const before = await warmUp()
    const { worker, stop, exited } = start("be terminated in a callback")
    await Atomics.waitAsync(stop, 0, 0).value
    await worker.terminate()
    await exited
    assert.strictEqual(openFiles(), before)
  })

  it("by an exception of a callback reaches the parent as that exception", async () => {
    const before = await warmUp()
    const { worker, exited } = start("throw in a callback")
    const [error] = await once(worker, "error") as [Error]
    assert.strictEqual(error.message, "from the callback")
    assert.strictEqual(await exited, 1)
    assert.strictEqual(openFiles(), before)
  })

  it("makes regions of its buffers stale for those who adopted them", async () => {
    const { worker, exited } = start("share a buffer")
    const [token] = await once(worker, "message") as [bigint]
    const region = Region.adopt(token)
    const into = new Uint8Array(1)
    assert.strictEqual(region.read(0, into, 0, 1), 1)
    assert.strictEqual(into[0], 9)
    assert.strictEqual(codeOf(() => region.buffer()), "ENOTSUP")
    worker.postMessage("exit")
    await exited
    assert.strictEqual(region.read(0, into, 0, 1), ESTALE)
    assert.strictEqual(region.write(0, into, 0, 1), ESTALE)
    assert.strictEqual(region.fillByte(0, 1), ESTALE)
    assert.strictEqual(region.madvise(0, 0, 4), ESTALE)
    assert.strictEqual(region.protectNone(0, 0), ESTALE)
    assert.strictEqual(codeOf(() => region.share()), "ESTALE")
    assert.strictEqual(codeOf(() => region.buffer()), "ESTALE")
    assert.strictEqual(codeOf(() => Region.adopt(token)), "ESTALE")
    assert.isFalse(region.closed)
    region.close()
    assert.isTrue(region.closed)
  })

  it.skipIf(!available)("waits for an access of another thread to its memory", async () => {
    const { worker, exited } = start("share a memory")
    const [token] = await once(worker, "message") as [bigint]
    using g = guest({ region: Region.adopt(token) })
    const bursts = new Bursts(g.uffd)
    const toucher = await Toucher.start(g.region)
    const byte = toucher.byte(3 * P)
    assert.strictEqual(await bursts.fault(), g.at(3))
    // The owner is at its end while the other thread is parked in the owner's memory.
    worker.postMessage("exit")
    assert.strictEqual(Uffd.copy(g.uffd, g.at(3), page(6), 0, P, 0), P)
    assert.strictEqual(await byte, 6)
    assert.strictEqual(await exited, 0)
    assert.strictEqual(await toucher.run({ kind: "read", offset: 0, length: 1 }), ESTALE)
    bursts.close()
    await toucher.end()
  })

  it("leaves a mapping to its other holders, and the last one ends the token", async () => {
    const region = Region.anonymous(P)
    const token = region.share()
    region.write(0, page(4), 0, P)
    const { worker, exited } = start("hold", token)
    await once(worker, "message")
    region.close()
    assert.strictEqual(region.read(0, page(0), 0, 1), -9)
    const again = Region.adopt(token)
    assert.strictEqual(again.fillByte(0, P), 4)
    worker.postMessage("exit")
    await exited
    assert.strictEqual(again.fillByte(0, P), 4)
    again.close()
    assert.strictEqual(codeOf(() => Region.adopt(token)), "ESTALE")
  })
})

describe("the end of a process", () => {
  const addon = JSON.stringify(createRequire(import.meta.url).resolve("userfaultfd-napi"))
  const run = (script: string) =>
    spawnSync(
      process.execPath,
      ["--expose-gc", "-e", `const u = require(${addon}); const c = u.constants\n${script}`],
      {
        encoding: "utf8"
      }
    )

  it("with open handles is clean, whether it ends by itself or by exit", () => {
    const open = `
      const [a, b] = u.socketpair(c.SOCK_STREAM)
      globalThis.kept = [a, b, u.Region.memfd("x", u.pageSize).buffer(), u.Region.ofBuffer(new ArrayBuffer(8))]
      const poller = new u.Poller(a)
      poller.watch(c.READABLE, () => {})`
    for (const end of ["process.exit(3)", "poller.unref(); process.exitCode = 3", "u.exitNow(3)"]) {
      const { status, signal, stderr } = run(`${open}\n${end}`)
      assert.deepStrictEqual({ status, signal, stderr }, { status: 3, signal: null, stderr: "" }, end)
    }
  })

  it("comes at an exception of a callback, as an uncaught one", () => {
    const { status, stderr } = run(`
      const [a, b] = u.socketpair(c.SOCK_STREAM)
      new u.Poller(a).watch(c.WRITABLE, () => { throw new RangeError("uncaught indeed") })`)
    assert.strictEqual(status, 1)
    assert.include(stderr, "RangeError: uncaught indeed")
  })

  it.skipIf(!available)("does not come at an exception that is handled, though its callback lingers", () => {
    const { status, stderr } = run(`
      const { Worker } = require("node:worker_threads")
      const uffd = u.open({ userModeOnly: true }).descriptor
      const region = u.Region.anonymous(2 * u.pageSize)
      u.register(uffd, region.address, region.length, c.MODE_MISSING)
      const ring = new Float64Array(u.EVENT_WORDS)
      let thrown = 0
      process.on("uncaughtException", (error) => { if (error.message === "mine") thrown++ })
      const poller = new u.FaultPoller(uffd, ring)
      poller.start(() => {
        u.copy(uffd, ring[2], new Uint8Array(u.pageSize), 0, u.pageSize, 0)
        throw new Error("mine")
      }, 1_000_000)
      new Worker(\`
        const region = require(${addon.replaceAll("\"", "'")}).Region.adopt(\${region.share()}n)
        region.fillByte(0, 1)
        region.fillByte(region.length / 2, 1)\`, { eval: true }).on("exit", () => {
        poller.close()
        process.exitCode = thrown
      })`)
    assert.deepStrictEqual({ status, stderr }, { status: 2, stderr: "" })
  })

  it.skipIf(!available)("comes at once by exitNow, though a thread is parked in a fault", () => {
    const { status, signal } = run(`
      const { Worker } = require("node:worker_threads")
      const uffd = u.open({ userModeOnly: true }).descriptor
      const region = u.Region.anonymous(u.pageSize)
      u.register(uffd, region.address, region.length, c.MODE_MISSING)
      new u.FaultPoller(uffd, new Float64Array(4)).start(() => u.exitNow(9))
      new Worker(\`
        require(${addon.replaceAll("\"", "'")}).Region.adopt(\${region.share()}n).fillByte(0, 1)\`, { eval: true })`)
    assert.deepStrictEqual({ status, signal }, { status: 9, signal: null })
  })

  it.skipIf(!available)("comes by SIGBUS for who touches a poisoned page, by SIGSEGV for a protected one", () => {
    const poisoned = run(`
      const uffd = u.open({ userModeOnly: true, required: c.FEATURE_POISON }).descriptor
      const region = u.Region.anonymous(u.pageSize)
      u.register(uffd, region.address, region.length, c.MODE_MISSING)
      if (u.poison(uffd, region.address, u.pageSize) === u.pageSize) region.fillByte(0, 1)`)
    assert.strictEqual(poisoned.signal, "SIGBUS", poisoned.stderr)
    const protectedPage = run(`
      const region = u.Region.anonymous(u.pageSize)
      const bytes = new Uint8Array(region.buffer())
      if (region.protectNone(0, u.pageSize) === 0) bytes[0]`)
    assert.strictEqual(protectedPage.signal, "SIGSEGV", protectedPage.stderr)
  })
})
