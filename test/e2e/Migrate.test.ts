import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { socketpair } from "./Descriptors.ts"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"

const links = ["unix", "tcp", "fd"] as const

/** Who serves the next stage of a journey, how the sender reaches it, and what was opened for that. */
const stage = async (dir: string, module: string, link: typeof links[number], memory?: number) => {
  const options = memory === undefined ? {} : { memory }
  if (link === "fd") {
    const pair = socketpair()
    const to = await Host.destination(dir, module, "fd:3", { ...options, descriptors: [pair.there] })
    return { to, uri: "fd:3", send: { descriptors: [pair.here] }, close: pair.close }
  }
  const to = await Host.destination(
    dir,
    module,
    link === "unix" ? `unix:${join(dir, "incoming")}` : "tcp:127.0.0.1:0",
    options
  )
  return { to, uri: to.uri, send: {}, close: () => {} }
}

/** Fields of both reports, as the interface names them. */
const checkReport = (report: any, role: string, memoryBytes: number) => {
  assert.strictEqual(report.role, role)
  assert.strictEqual(report.state, "completed")
  assert.strictEqual(report.dialect, "umem")
  assert.strictEqual(report.memoryBytes, memoryBytes)
  assert.strictEqual(report.pageSize, 4096)
  assert.strictEqual(report.pages.total, memoryBytes / 4096)
  for (const field of ["bytesOnWire", "downtimeMs", "totalMs", "throughputMiBps"]) {
    assert.isAbove(report[field], 0, field)
  }
  const { background, fill, onDemand, removed, total } = report.pages
  assert.isAtMost(fill, onDemand + background)
  if (role === "source") return assert.isAtMost(onDemand + background, total)
  assert.strictEqual(onDemand + background + removed, total)
  const { blockedMs, count, maxUs, p50Us, p90Us, p99Us } = report.faults
  assert.isAtLeast(blockedMs, 0)
  if (count === 0) assert.deepEqual([p50Us, p90Us, p99Us, maxUs], [null, null, null, null])
  else assert.isTrue(p50Us <= p90Us && p90Us <= p99Us && p99Us <= maxUs)
}

interface Journey {
  readonly module: string
  readonly memory?: number
  /** `undefined`: what the guest says. */
  readonly memoryBytes?: number
  readonly background: boolean
  /** Asked again and again; must be `ok` wherever it is answered. */
  readonly verify: unknown
  /** Asked at every station while the guest moves; counted by `answered`. */
  readonly during: unknown
}

/** Moves a guest over every link, one after the other, each destination being the next one's source. */
const travel = async (dir: string, { background, during, memory, module, verify, ...journey }: Journey) => {
  let from: Host.Guest = await Host.source(dir, module, memory === undefined ? {} : { memory })
  const memoryBytes = journey.memoryBytes ?? (await from.call({ op: "stats" })).answer.ramBytes
  let answered = 0
  const verified = async (guest: Host.Guest) => {
    const { answer, error } = await guest.call(verify)
    assert.isUndefined(error)
    assert.isTrue(answer.ok, JSON.stringify(answer))
    return answer
  }
  await verified(from)
  for (const link of links) {
    const { close, send, to, uri } = await stage(dir, module, link, memory)
    const migration = Host.migrate(from, uri, background ? [] : ["--nobg"], send)
    const [here, there] = [from.call(during), to.call(during)]
    await to.event("running")
    // Without background pages it is this that fetches them.
    await verified(to)
    const { answer, code, stderr } = await migration.ended
    close()
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(answer.event, "completed")
    checkReport(answer.report, "source", memoryBytes)
    if (!background) assert.strictEqual(answer.report.pages.background, 0)
    const { report } = await to.event("completed")
    checkReport(report, "destination", memoryBytes)

    const ended = await here
    if (ended.code === 0) answered++
    else assert.match(ended.error!.message, /moved/)
    assert.strictEqual((await there).code, 0)
    answered++

    assert.match((await from.call(verify)).error!.message, /moved to .*call it there/)
    const status = await from.status()
    assert.deepInclude(status, { state: "completed", remaining: 0, total: memoryBytes / 4096 })
    assert.strictEqual(await from.quit(), 0)
    from = to
  }
  const last = await verified(from)
  assert.lengthOf(Host.childrenOf(from.pid), 0)
  assert.deepInclude(await from.status(), { role: "destination", state: "completed", remaining: 0 })
  assert.strictEqual(await from.quit(), 0)
  assert.deepEqual(Host.leftIn(dir), [])
  return { last, answered }
}

describe("a guest moves over unix, tcp and fd, each destination being the next source", () => {
  for (const background of [true, false]) {
    const how = background ? "with background pages" : "with --nobg"

    it(`of plain memory, a module outside the checkout, ${how}: each call is carried out once`, async () => {
      const dir = Host.directory()
      const { answered, last } = await travel(dir, {
        module: Modules.notebook(dir),
        memoryBytes: Modules.pages * 4096,
        background,
        verify: { op: "verify" },
        during: { op: "add" }
      })
      assert.strictEqual(last.pages, Modules.pages)
      assert.strictEqual(last.count, answered)
    })

    it(`of WebAssembly whose memory has grown since it started, ${how}`, async () => {
      const dir = Host.directory()
      const { answered, last } = await travel(dir, {
        module: Modules.abacus(dir),
        memoryBytes: 64 * 65536,
        background,
        verify: { op: "verify" },
        during: { op: "store", at: 4096 }
      })
      assert.strictEqual(last.count, 64 * 65536 / 4 + answered)
      assert.strictEqual(last.bytes, 64 * 65536)
    })

    it(`B64: the built-in counter, working all the time, ${how}`, async () => {
      await travel(Host.directory(), {
        module: "counter",
        memory: 8,
        memoryBytes: 8 * 2 ** 20,
        background,
        verify: { op: "verify" },
        during: { op: "status" }
      })
    })
  }

  it("the built-in sqlite, queried and written to all the time", async () => {
    const dir = Host.directory()
    const { answered } = await travel(dir, {
      module: "sqlite",
      memory: 24,
      background: true,
      verify: { op: "integrity" },
      during: { sql: "UPDATE work SET ticks = ticks + 1" }
    })
    assert.isAtLeast(answered, 3)
  })
})

describe("a guest that does not need all of its memory", () => {
  it("answers from the pages it asks for, and a source without background pages goes when the destination quits", async () => {
    const dir = Host.directory()
    const [from, to] = await Promise.all([
      Host.source(dir, "sqlite", { memory: 32 }),
      Host.destination(dir, "sqlite", `unix:${join(dir, "incoming")}`, { memory: 32 })
    ])
    const before = (await from.call({ op: "get", key: "item-17" })).answer
    const daemon = Host.daemonOf(to)
    const migration = Host.migrate(from, to.uri, ["--nobg"])
    await to.event("running")
    assert.deepEqual((await to.call({ op: "get", key: "item-17" })).answer, before)
    const status = await to.status()
    assert.strictEqual(status.state, "running")
    assert.isAbove(status.remaining, status.total / 2)
    const refused = await Host.postcopy("call", "--control", from.control, "{\"op\":\"stats\"}")
    assert.strictEqual(refused.code, 70)
    assert.match(refused.error!.message, /moved to unix:.*call it there/)
    assert.lengthOf(refused.lines, 0)
    assert.strictEqual(await to.quit(), 0)
    const { answer, code, stderr } = await migration.ended
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(answer.report.state, "completed")
    assert.isBelow(answer.report.pages.onDemand, answer.report.pages.total / 2)
    await Host.gone(daemon)
    assert.strictEqual(await from.quit(), 0)
    assert.deepEqual(Host.leftIn(dir), [])
  })

  it("gives pages back before they are fetched: they read zero and count as removed", async () => {
    const dir = Host.directory()
    const module = Modules.notebook(dir)
    const [from, to] = await Promise.all([
      Host.source(dir, module),
      Host.destination(dir, module, "tcp:127.0.0.1:0", { args: ["--exit-when-complete"] })
    ])
    const migration = Host.migrate(from, to.uri, ["--nobg"])
    const discarded = await to.call({ op: "discard", offset: 2 ** 20, length: 2 ** 20 })
    assert.isUndefined(discarded.error)
    const verified = to.call({ op: "verify" })
    const [{ report }, { answer, code }] = await Promise.all([to.event("completed"), migration.ended])
    // The last page may arrive, and the process go, before the answer is on its way.
    const said = await verified
    if (said.code === 0) assert.isTrue(said.answer.ok, JSON.stringify(said.answer))
    assert.strictEqual(code, 0)
    checkReport(report, "destination", Modules.pages * 4096)
    assert.strictEqual(report.pages.removed, 256)
    assert.strictEqual(report.pages.onDemand, Modules.pages - 256)
    assert.strictEqual(answer.report.pages.removed, 256)
    assert.strictEqual((await to.ended).code, 0)
    assert.strictEqual(await from.quit(), 0)
    assert.deepEqual(Host.leftIn(dir), [])
  })

  it("is told to exit when complete: exits 0 by itself, with --postcopy-flags 1 as well", async () => {
    const dir = Host.directory()
    const [from, to] = await Promise.all([
      Host.source(dir, "counter", { memory: 8 }),
      Host.destination(dir, "counter", `unix:${join(dir, "incoming")}`, {
        memory: 8,
        args: ["--exit-when-complete", "--postcopy-flags", "0x1"]
      })
    ])
    const { code } = await Host.migrate(from, to.uri).ended
    assert.strictEqual(code, 0)
    const { code: received, lines } = await to.ended
    assert.strictEqual(received, 0)
    assert.deepEqual(lines.map(({ event }) => event), ["listening", "running", "completed"])
    checkReport(lines[2].report, "destination", 8 * 2 ** 20)
    assert.strictEqual(await from.quit(), 0)
  })
})
