/** Defects of the system of 2011 that only processes can have. */
import { once } from "node:events"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { connect, createServer } from "node:net"
import { join } from "node:path"
import { assert, describe, it, onTestFinished } from "vitest"
import { socketpair } from "./Descriptors.ts"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"
import { open, openAgain } from "./Remains.ts"

const descriptors = (pid: number): ReadonlyArray<string> =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)]
    } catch {
      return [] // closed meanwhile
    }
  })

describe("the defects of 2011 that processes can have", () => {
  it("B39: a migration that fails before the switchover leaves no descriptor open", async () => {
    const dir = Host.directory()
    const from = await Host.source(dir, "counter", { memory: 1 })
    const path = join(dir, "between")
    const server = createServer((socket) => {
      socket.on("error", () => {})
      socket.once("data", () => socket.destroy())
    }).listen(path)
    onTestFinished(() => void server.close())
    let before: ReadonlyArray<string> = []
    // What is loaded, and opened once, with the first migration is no leak.
    for (let i = 0; i < 3; i++) {
      assert.strictEqual((await from.send(`unix:${path}`)).code, 75)
      assert.strictEqual((await from.status()).state, "running")
      if (i === 0) before = open(from.pid)
    }
    assert.deepEqual(await openAgain(from.pid, before), before)
    assert.strictEqual(await from.quit(), 0)
  })

  it("B42: a guest moves over descriptors that both commands were given", async () => {
    const dir = Host.directory()
    const { close, here, there } = socketpair()
    const from = await Host.source(dir, "counter", { memory: 1 })
    const to = await Host.destination(dir, "counter", "fd:3", { memory: 1, descriptors: [there] })
    const migration = Host.migrate(from, "fd:3", [], { descriptors: [here] })
    await to.event("completed")
    close()
    const { code, stderr } = await migration.ended
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(await from.quit(), 0)
    assert.strictEqual(await to.quit(), 0)
  })

  it("B56: restore may touch memory that has not come: the daemon serves before it runs", async () => {
    const dir = Host.directory()
    const module = Modules.touching(dir)
    const from = await Host.source(dir, module)
    const to = await Host.destination(dir, module, `unix:${join(dir, "incoming")}`)
    const { code } = await Host.migrate(from, to.uri, ["--nobg"]).ended
    // The one page that `restore` read was all that was asked for, until now.
    assert.strictEqual(code, 0)
    assert.deepEqual((await to.call({})).answer, { seen: 77 })
    assert.strictEqual(await from.quit(), 0)
    assert.strictEqual(await to.quit(), 0)
  })

  it("B58: the daemon has its own descriptors, none that its process was given; and is reaped", async () => {
    const dir = Host.directory()
    const to = await Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, {
      memory: 1,
      descriptors: ["pipe", "pipe"]
    })
    const given = [3, 4].map((fd) => readlinkSync(`/proc/${to.pid}/fd/${fd}`))
    const daemon = Host.daemonOf(to)
    const its = descriptors(daemon)
    for (const one of given) assert.notInclude(its, one)
    // Its two sockets, beside the stderr that it shares, and nothing that a command listens with.
    const sockets = new Set(its.filter((name) => name.startsWith("socket:")))
    sockets.delete(readlinkSync(`/proc/${to.pid}/fd/2`))
    assert.strictEqual(sockets.size, 2)
    process.kill(daemon, "SIGKILL")
    await to.event("failed")
    assert.deepEqual(Host.childrenOf(to.pid), [])
  })

  it("B59: a daemon that dies while its process listens: receive fails, and nobody can send it a guest", async () => {
    const dir = Host.directory()
    const to = await Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, { memory: 1 })
    process.kill(Host.daemonOf(to), "SIGKILL")
    const { code, error, lines } = await to.ended
    assert.strictEqual(code, 70)
    assert.match(error!.message, /umem daemon ended before the switchover: signal SIGKILL/)
    assert.deepEqual(lines.map(({ event }) => event), ["listening", "failed"])
    assert.deepEqual(Host.leftIn(dir), [])
  })

  it("B59: a daemon that dies while the guest's sections come: receive fails, and the source sees it at once", async () => {
    const dir = Host.directory()
    const to = await Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, { memory: 1 })
    const socket = connect(join(dir, "incoming")).on("error", () => {})
    const closed = once(socket, "close")
    socket.write(Buffer.from("QEVM\0\0\0\x03", "latin1"))
    socket.resume()
    await to.reaches(({ state }) => state === "incoming")
    process.kill(Host.daemonOf(to), "SIGKILL")
    const { code, error } = await to.ended
    assert.strictEqual(code, 70)
    assert.match(error!.message, /umem daemon ended before the switchover: signal SIGKILL/)
    await closed
  })

  it("B59: a daemon that dies before the guest's first byte comes: the guest runs on at the source", async () => {
    const dir = Host.directory()
    const module = Modules.notebook(dir)
    const from = await Host.source(dir, module)
    const to = await Host.destination(dir, module, `unix:${join(dir, "incoming")}`)
    // Between them, holding the last bytes before the switchover back.
    const path = join(dir, "between")
    const held = new Promise<() => void>((resolve) => {
      const server = createServer({ pauseOnConnect: true }, (socket) => {
        socket.on("error", () => {})
        resolve(() => socket.destroy())
      }).listen(path)
      onTestFinished(() => void server.close())
    })
    const migration = Host.migrate(from, `unix:${path}`)
    const cut = await held
    process.kill(Host.daemonOf(to), "SIGKILL")
    assert.strictEqual((await to.ended).code, 70)
    cut()
    const { code, error } = await migration.ended
    assert.strictEqual(code, 75)
    assert.match(error!.message, /the guest still runs at the source/)
    assert.isTrue((await from.call({ op: "verify" })).answer.ok)
    assert.strictEqual(await from.quit(), 0)
  })

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    it(`B69: a destination that ${signal} ends takes its daemon with it, whether it has a guest or not`, async () => {
      const dir = Host.directory()
      const idle = await Host.destination(dir, "counter", `unix:${join(dir, "idle")}`, { memory: 1 })
      const from = await Host.source(dir, "counter", { memory: 1 })
      const to = await Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, { memory: 1 })
      const migration = Host.migrate(from, to.uri, ["--nobg"])
      await to.event("running")
      for (const one of [idle, to]) {
        const daemon = Host.daemonOf(one)
        process.kill(one.pid, signal)
        await one.ended
        await Host.gone(daemon)
      }
      // The source hears of it: its guest has moved, and is not run again.
      await migration.ended
      assert.notStrictEqual((await from.status()).state, "running")
      await from.quit()
    })
  }

  it("B65: a backing that the guest's module asks for is what its memory has", async () => {
    const dir = Host.directory()
    for (const backing of ["anonymous", "memfd"] as const) {
      const module = Modules.bare(dir, { length: 2 ** 20, backing })
      const to = await Host.destination(dir, module, `unix:${join(dir, backing)}`)
      const mapped = readFileSync(`/proc/${to.pid}/maps`, "utf8").includes("/memfd:postcopy-0 ")
      assert.strictEqual(mapped, backing === "memfd")
      await to.quit()
    }
  })

  it("B71: a receive that gets no guest exits non-zero", async () => {
    const dir = Host.directory()
    const to = await Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, { memory: 1 })
    const from = await Host.source(dir, "counter", { memory: 2 })
    const { code } = await Host.migrate(from, to.uri).ended
    assert.strictEqual(code, 75)
    assert.strictEqual((await to.ended).code, 65)
    assert.strictEqual(await from.quit(), 0)
  })
})
