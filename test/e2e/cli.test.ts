/**
 * The command line end to end, over real userfaultfd: processes as an operator starts them, with a guest module of the
 * user's own outside the checkout. Nothing sleeps; everything waits for a line, a state, or the end of a process.
 */
import { assert, describe, it } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { connect as connectTo, createServer } from "node:net"
import { join } from "node:path"
import { onTestFinished } from "vitest"
import { socketpair } from "../cli/Descriptors.ts"
import { directory, start } from "../cli/Postcopy.ts"
import { ask, canReceive, guestSource, leftovers, reached, shells, sum, why } from "../cli/Shells.ts"

describe.skipIf(!canReceive)(`a migration between two shells${why}`, { timeout: 120_000 }, () => {
  it.each(["unix:link", "tcp:127.0.0.1:0"])("over %s moves a guest whole, and leaves nothing behind", async (from) => {
    const both = await shells(from)
    const { cwd, destination, on, source, uri } = both
    const before = await ask(both, "s", "sum")
    assert.deepStrictEqual(before.answer, { sum })
    const early = on("d", "call", `{"op":"steps"}`)
    // The call is answered before all pages have come, which takes a quarter of a second at this rate.
    const migrated = await on("s", "migrate", uri, "--max-bandwidth", "64M").ended
    assert.strictEqual(migrated.code, 0, migrated.stderr)
    const report = migrated.objects.at(-1).report
    assert.deepInclude(report, { role: "source", state: "completed", memoryBytes: 2 ** 24, pageSize: 4096 })
    await destination.event("running")
    const completed = (await destination.event("completed")).report
    const { background, onDemand, removed, total } = completed.pages
    assert.strictEqual(onDemand + background + removed, total)
    assert.isAbove((await early.ended).objects[0].steps, 0)
    assert.isBelow(completed.missingAtFirstAnswer, total + 1)
    assert.deepStrictEqual((await ask(both, "d", "sum")).answer, { sum })
    const refused = await ask(both, "s", "sum")
    assert.strictEqual(refused.code, 70)
    assert.include(refused.error.message, "moved")
    assert.strictEqual((await on("s", "cancel").ended).code, 1)
    assert.strictEqual((await on("s", "resume").ended).code, 1)
    for (const [side, process] of [["s", source], ["d", destination]] as const) {
      assert.strictEqual((await on(side, "quit").ended).code, 0)
      assert.strictEqual((await process.ended).code, 0)
    }
    assert.deepStrictEqual(leftovers(cwd), [])
  })

  it("with --exit-when-complete ends by itself", async () => {
    const { destination, on, source, uri } = await shells("unix:link", ["--exit-when-complete"])
    assert.strictEqual((await on("s", "migrate", uri).ended).code, 0)
    assert.strictEqual((await destination.ended).code, 0)
    source.child.kill("SIGINT")
    assert.strictEqual((await source.ended).code, 0)
  })

  it("goes on to a third process", async () => {
    const both = await shells("unix:link")
    const third = start(["receive", "./guest.ts", "unix:next", "--exit-when-complete", "--json"], { cwd: both.cwd })
    await third.event("listening")
    assert.strictEqual((await both.on("s", "migrate", both.uri).ended).code, 0)
    await both.destination.event("completed")
    const onward = await both.on("d", "migrate", "unix:next").ended
    assert.strictEqual(onward.code, 0, onward.stderr)
    assert.strictEqual((await third.ended).code, 0)
  })

  it("over fd:N uses the socket that both commands were given", async () => {
    const [one, other] = socketpair()
    const both = await shells("fd:3", [], { descriptors: [one.fd] })
    const migrating = start(["migrate", "fd:3", "--control", "s", "--json"], { cwd: both.cwd, descriptors: [other.fd] })
    one.close()
    other.close()
    const { code, stderr } = await migrating.ended
    assert.strictEqual(code, 0, stderr)
    assert.deepStrictEqual((await ask(both, "d", "sum")).answer, { sum })
  })

  it("keeps to its limit until that is lifted", async () => {
    const both = await shells("unix:link")
    const migrating = both.on("s", "migrate", both.uri, "--max-bandwidth", "100k")
    await both.destination.event("running")
    const { objects: [status] } = await both.on("s", "status").ended
    assert.strictEqual(status.state, "postcopy")
    assert.isAbove(status.remaining, 0)
    assert.strictEqual((await both.on("s", "set", "--max-bandwidth", "unlimited").ended).code, 0)
    assert.strictEqual((await migrating.ended).code, 0)
  })
})

describe.skipIf(!canReceive)(`a migration with --nobg${why}`, { timeout: 120_000 }, () => {
  it("lasts until every page was asked for", async () => {
    const both = await shells("unix:link")
    const migrating = both.on("s", "migrate", both.uri, "--nobg")
    await both.destination.event("running")
    const incomplete = await both.on("d", "migrate", "unix:elsewhere").ended
    assert.strictEqual(incomplete.code, 1)
    assert.deepStrictEqual((await ask(both, "d", "sum")).answer, { sum })
    const { code, objects } = await migrating.ended
    assert.strictEqual(code, 0)
    assert.strictEqual(objects.at(-1).report.pages.background, 0)
    assert.strictEqual((await both.destination.event("completed")).report.pages.onDemand, 4096)
  })

  it("outlives its command, and a source that is told to end waits for it", async () => {
    const both = await shells("unix:link")
    const migrating = both.on("s", "migrate", both.uri, "--nobg")
    await both.destination.event("running")
    migrating.child.kill("SIGINT")
    assert.strictEqual((await migrating.ended).code, 130)
    both.source.child.kill("SIGTERM")
    await new Promise((resolve) => both.source.child.stderr!.once("data", resolve))
    assert.strictEqual((await both.on("s", "status").ended).objects[0].state, "postcopy")
    assert.deepStrictEqual((await ask(both, "d", "sum")).answer, { sum })
    assert.strictEqual((await both.source.ended).code, 0)
    assert.strictEqual((await both.on("d", "quit").ended).code, 0)
    assert.strictEqual((await both.destination.ended).code, 0)
    assert.deepStrictEqual(leftovers(both.cwd), [])
  })

  it("ends when the destination quits", async () => {
    const both = await shells("unix:link")
    const migrating = both.on("s", "migrate", both.uri, "--nobg")
    await both.destination.event("running")
    await both.on("d", "quit").ended
    assert.strictEqual((await both.destination.ended).code, 0)
    assert.strictEqual((await migrating.ended).code, 0)
    await both.on("s", "quit").ended
    assert.strictEqual((await both.source.ended).code, 0)
  })

  it("whose source is killed by a second signal parks the guest and says so", async () => {
    const both = await shells("unix:link")
    const migrating = both.on("s", "migrate", both.uri, "--nobg")
    await both.destination.event("running")
    both.source.child.kill("SIGTERM")
    await new Promise((resolve) => both.source.child.stderr!.once("data", resolve))
    both.source.child.kill("SIGTERM")
    assert.strictEqual((await both.source.ended).code, 70)
    assert.strictEqual((await migrating.ended).code, 70)
    assert.strictEqual((await both.destination.event("failed")).error.guest, "parked")
    assert.strictEqual((await both.on("d", "status").ended).objects[0].state, "failed")
    const call = await ask(both, "d", "steps")
    assert.strictEqual(call.code, 70)
    assert.include(call.error.message, "parked")
    both.destination.child.kill("SIGTERM")
    assert.strictEqual((await both.destination.ended).code, 70)
    assert.deepStrictEqual(leftovers(both.cwd), [])
  })
})

/** Accepts a connection and never reads from it: a migration that cannot get to its switchover. */
const blackHole = async (cwd: string): Promise<string> => {
  const path = join(cwd, "hole")
  const server = createServer({ pauseOnConnect: true }, (socket) => void socket.on("error", () => {}))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  onTestFinished(() => void server.close())
  return `unix:${path}`
}

describe("a migration that does not get to its switchover", { timeout: 120_000 }, () => {
  const alone = async () => {
    const cwd = directory()
    writeFileSync(join(cwd, "guest.ts"), guestSource)
    const source = start(["run", "./guest.ts", "--control", "s", "--json"], { cwd })
    await source.event("running")
    const on = (side: "s" | "d", command: string, ...args: ReadonlyArray<string>) =>
      start([command, ...args, "--control", side, "--json"], { cwd })
    return { cwd, source, destination: source, uri: await blackHole(cwd), on }
  }

  it("can be cancelled: the guest runs on", async () => {
    const one = await alone()
    const migrating = one.on("s", "migrate", one.uri)
    await reached(one, "s", "migrating")
    assert.strictEqual((await one.on("s", "cancel").ended).code, 0)
    const { code, error } = await migrating.ended
    assert.strictEqual(code, 75)
    assert.include(error.message, "the guest still runs at the source")
    assert.deepStrictEqual((await ask(one, "s", "sum")).answer, { sum })
  })

  it("ends with its command: the guest runs on", async () => {
    const one = await alone()
    const migrating = one.on("s", "migrate", one.uri)
    await reached(one, "s", "migrating")
    migrating.child.kill("SIGINT")
    assert.strictEqual((await migrating.ended).code, 130)
    assert.strictEqual((await one.on("s", "status").ended).objects[0].state, "running")
    assert.deepStrictEqual((await ask(one, "s", "sum")).answer, { sum })
  })

  it("for nobody is there fails with 75: the guest runs on", async () => {
    const one = await alone()
    const { code, error } = await one.on("s", "migrate", "unix:nobody").ended
    assert.strictEqual(code, 75)
    assert.include(error.message, "the guest still runs at the source")
    assert.deepStrictEqual((await ask(one, "s", "sum")).answer, { sum })
    one.source.child.kill("SIGTERM")
    assert.strictEqual((await one.source.ended).code, 0)
    assert.deepStrictEqual(leftovers(one.cwd), ["hole"])
  })
})

describe.skipIf(!canReceive)(`what arrives and is no guest${why}`, { timeout: 60_000 }, () => {
  const header = "5145564d00000003"
  const cases: ReadonlyArray<readonly [string, string, number]> = [
    ["another magic", "5145564e00000003", 65],
    ["another version", "5145564d00000004", 65],
    ["an unknown section", `${header}04000000090363707500000000000000020000`, 65],
    ["nothing at all", "", 70],
    ["a beginning only", header, 70]
  ]
  it.each(cases)("%s fails, and the process ends", async (_, hex, expected) => {
    const receiving = start(["receive", "counter", "tcp:127.0.0.1:0", "--memory", "1", "--json"])
    const { uri } = await receiving.event("listening")
    const socket = connectTo(Number(uri.split(":").at(-1)), "127.0.0.1").on("error", () => {})
    socket.end(Buffer.from(hex, "hex"))
    const { code, error, objects } = await receiving.ended
    assert.strictEqual(code, expected)
    assert.deepStrictEqual(objects.map(({ event }) => event), ["listening", "failed"])
    assert.deepStrictEqual(objects[1].error, error)
  })

  it("a second listener on a path in use leaves the first alone", async () => {
    const both = await shells("unix:link")
    const second = await start(["receive", "./guest.ts", "unix:link", "--json"], { cwd: both.cwd }).ended
    assert.deepStrictEqual([second.code, second.stdout], [1, ""])
    assert.strictEqual((await both.on("s", "migrate", both.uri).ended).code, 0)
  })
})
