/**
 * The command line end to end, over real userfaultfd: processes as an operator starts them, with a guest module of the
 * user's own outside the checkout. Nothing sleeps; everything waits for a line, a state, or the end of a process.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect as connectTo, createServer } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"
import { examine } from "../../src/cli/HostFindings.ts"
import { socketpair } from "../cli/Descriptors.ts"
import { directory, type Options, postcopy, type Running, start } from "../cli/Postcopy.ts"

const { canReceive } = examine()
const why = canReceive ? "" : " (skipped: this host has no userfaultfd; see postcopy doctor)"

const library = new URL("../../src/index.ts", import.meta.url).href

/** Sixteen MiB whose every page says which it is, and a count that goes on. */
const guestSource = `
import { Guest } from ${JSON.stringify(library)}
export default Guest.memory({
  blocks: ({ memoryMiB = 16 }) => [{ idstr: "pc.ram", length: memoryMiB * 2 ** 20 }],
  start: (ctx) => {
    const words = new Uint32Array(ctx.memory["pc.ram"].buffer, ctx.memory["pc.ram"].byteOffset, ctx.memory["pc.ram"].length / 4)
    for (let at = 0; at < words.length; at += 1024) words.fill(at / 1024 + 1, at, at + 1024)
    ctx.state = { steps: 0 }
  },
  step: (ctx) => { ctx.state.steps++; return { restMillis: 1 } },
  call: (ctx, request) => {
    if (request.op === "throw") throw new Error("this guest throws")
    if (request.op === "sum") {
      const words = new Uint32Array(ctx.memory["pc.ram"].buffer, ctx.memory["pc.ram"].byteOffset, ctx.memory["pc.ram"].length / 4)
      let sum = 0
      for (let at = 0; at < words.length; at += 512) sum += words[at]
      return { sum }
    }
    return { steps: ctx.state.steps }
  },
  save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),
  restore: (ctx, bytes) => { ctx.state = JSON.parse(new TextDecoder().decode(bytes)) }
})
`

/** Two words a page of 4096, each the page's number from 1. */
const sum = 4096 * 4097

interface Shells {
  readonly cwd: string
  readonly source: Running
  readonly destination: Running
  readonly uri: string
  /** A command about one of them. */
  readonly on: (side: "s" | "d", command: string, ...args: ReadonlyArray<string>) => Running
}

/** A directory with the guest's module, `run` and `receive` in it, ready. */
const shells = async (
  from: string,
  receiveOptions: ReadonlyArray<string> = [],
  options: Options = {}
): Promise<Shells> => {
  const cwd = directory()
  writeFileSync(join(cwd, "guest.ts"), guestSource)
  const source = start(["run", "./guest.ts", "--control", "s", "--json"], { cwd })
  const destination = start(["receive", "./guest.ts", from, "--control", "d", "--json", ...receiveOptions], {
    ...options,
    cwd
  })
  await source.event("running")
  const { uri } = await destination.event("listening")
  const on = (side: "s" | "d", command: string, ...args: ReadonlyArray<string>) =>
    start([command, ...args, "--control", side, "--json"], { cwd })
  return { cwd, source, destination, uri, on }
}

const ask = async ({ on }: Shells, side: "s" | "d", op: string) => {
  const { code, error, objects } = await on(side, "call", JSON.stringify({ op })).ended
  return { code, error, answer: objects[0] }
}

const leftovers = (cwd: string) => readdirSync(cwd).filter((name) => name !== "guest.ts")

/** Waits for a state, by the command that is there for it. */
const reached = async ({ on }: Shells, side: "s" | "d", state: string) => {
  let seen: string | undefined
  while (seen !== state) seen = (await on(side, "status").ended).objects[0]?.state
}

describe.skipIf(!canReceive)(`a migration between two shells${why}`, { timeout: 120_000 }, () => {
  it.each(["unix:link", "tcp:127.0.0.1:0"])("over %s moves a guest whole, and leaves nothing behind", async (from) => {
    const both = await shells(from)
    const { cwd, destination, on, source, uri } = both
    const before = await ask(both, "s", "sum")
    assert.deepStrictEqual(before.answer, { sum })
    const early = on("d", "call", `{"op":"steps"}`)
    const migrated = await on("s", "migrate", uri).ended
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

describe("a guest's process", { timeout: 60_000 }, () => {
  const module = (source: string) => {
    const path = join(directory(), "guest.ts")
    writeFileSync(path, source)
    return path
  }

  it("whose module throws, or is none, is not started: exit 1", async () => {
    for (const source of ["throw new Error('no way')", "export default 5"]) {
      const path = module(source)
      for (const args of [["run", path], ["receive", path, "unix:link"]]) {
        const { code, error, stdout } = await start([...args, "--json"], { cwd: directory() }).ended
        assert.deepStrictEqual([code, stdout], [canReceive || args[0] === "run" ? 1 : 69, ""])
        if (code === 1) assert.include(error.message, path)
      }
    }
  })

  it("whose guest throws while it runs ends with it: exit 70", async () => {
    const path = module(`
      import { Guest } from ${JSON.stringify(library)}
      let steps = 0
      export default Guest.memory({
        blocks: [{ idstr: "pc.ram", length: 65536 }],
        step: () => { if (++steps > 10) throw new Error("worn out") }
      })`)
    const { code, error, objects } = await postcopy("run", path, "--json")
    assert.deepStrictEqual([code, objects], [70, [{ event: "running" }]])
    assert.include(error.message, "worn out")
  })

  it("prints nothing of the guest's between its events", async () => {
    const path = module(`
      import { Guest } from ${JSON.stringify(library)}
      console.log("loading")
      export default Guest.memory({
        blocks: [{ idstr: "pc.ram", length: 65536 }],
        start: () => console.log("starting"),
        call: () => 1
      })`)
    const running = start(["run", path, "--json"])
    await running.event("running")
    running.child.kill("SIGINT")
    const { code, stdout } = await running.ended
    assert.deepStrictEqual([code, stdout], [130, `{"event":"running"}\n`])
  })

  it("pauses and resumes its guest; calls wait", async () => {
    const control = join(directory(), "s")
    const running = start(["run", "counter", "--memory", "1", "--control", control, "--json"])
    await running.event("running")
    assert.strictEqual((await postcopy("pause", "--control", control)).code, 0)
    assert.include((await postcopy("status", "--control", control, "--json")).objects[0], { state: "paused" })
    const waiting = start(["call", `{"op":"verify"}`, "--control", control, "--json"])
    assert.strictEqual((await postcopy("resume", "--control", control)).code, 0)
    assert.isTrue((await waiting.ended).objects[0].ok)
    assert.strictEqual((await postcopy("call", `{"op":"?"}`, "--control", control)).code, 1)
    assert.strictEqual((await postcopy("quit", "--control", control)).code, 0)
    assert.strictEqual((await running.ended).code, 0)
  })
})

describe("a host without the addon", { timeout: 120_000 }, () => {
  const env = { NODE_OPTIONS: `--require ${fileURLToPath(new URL("../cli/NoAddon.cjs", import.meta.url))}` }

  it("refuses to receive before it listens: exit 69", async () => {
    const cwd = directory()
    const { code, error, stdout } = await start(["receive", "counter", "unix:link", "--control", "d", "--json"], {
      cwd,
      env
    }).ended
    assert.deepStrictEqual([code, stdout, error.tag], [69, "", "Unsupported"])
    assert.deepStrictEqual(readdirSync(cwd), [])
  })

  it.skipIf(!canReceive)("still sends", async () => {
    const cwd = directory()
    const source = start(["run", "counter", "--memory", "8", "--control", "s", "--json"], { cwd, env })
    const destination = start(["receive", "counter", "unix:link", "--memory", "8", "--exit-when-complete", "--json"], {
      cwd
    })
    await source.event("running")
    await destination.event("listening")
    const { code, stderr } = await start(["migrate", "unix:link", "--control", "s"], { cwd, env }).ended
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual((await destination.ended).code, 0)
  })

  it("is told by doctor, with the remedy: exit 69", async () => {
    const { code, error, objects } = await start(["doctor", "--json"], { env }).ended
    assert.deepStrictEqual([code, objects[0].canReceive], [69, false])
    assert.include(error.message, "npm rebuild")
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

describe.skipIf(!canReceive)(`demo${why}`, { timeout: 180_000 }, () => {
  const demo = (args: ReadonlyArray<string>, env: Record<string, string> = {}) => {
    const temporary = directory()
    const running = start(["demo", "--json", ...args], { env: { TMPDIR: temporary, ...env } })
    return { ...running, left: () => readdirSync(temporary) }
  }

  it.each([
    ["sqlite", ["--memory", "32"]],
    ["sqlite", ["--memory", "32", "--nobg"]],
    ["counter", ["--memory", "16"]],
    ["counter", ["--memory", "16", "--nobg"]],
    ["counter", ["--memory", "4", "--max-bandwidth", "20M"]]
  ])("moves %s %j whole", async (guest, args) => {
    const { ended, left } = demo(["--guest", guest, ...args])
    const { code, objects, stderr } = await ended
    assert.strictEqual(code, 0, stderr)
    const [outcome] = objects
    assert.deepInclude(outcome, { event: "report", verified: true })
    assert.deepInclude(outcome.source, { role: "source", state: "completed" })
    assert.deepInclude(outcome.destination, { role: "destination", state: "completed" })
    assert.isAbove(outcome.downtimeMs, 0)
    assert.isAbove(outcome.missingAtFirstAnswer, 0)
    if (args.includes("--nobg")) assert.strictEqual(outcome.destination.pages.background, 0)
    assert.deepStrictEqual(left(), [])
  })

  it("says so when a byte was changed on the way: exit 70", async () => {
    const { ended, left } = demo(["--guest", "counter", "--memory", "16"], { POSTCOPY_TEST_FLIP_BYTE: "5000000" })
    const { code, error, objects } = await ended
    assert.deepStrictEqual([code, objects[0].verified, error.tag], [70, false, "NotVerified"])
    assert.deepStrictEqual(left(), [])
  })

  it("is quiet in a pipe, apart from what came out of it", async () => {
    const { code, stderr, stdout } = await start(["demo", "--guest", "counter", "--memory", "4"]).ended
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.include(stdout, "verified: the guest is whole")
  })

  it("interrupted takes its processes along", async () => {
    const { child, ended, left } = demo(["--guest", "counter", "--memory", "64", "--nobg"])
    let children: ReadonlyArray<string> = []
    while (children.length < 2) {
      children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").split(" ").filter((pid) =>
        pid !== ""
      )
      await new Promise(setImmediate)
    }
    child.kill("SIGINT")
    assert.strictEqual((await ended).code, 130)
    assert.deepStrictEqual(children.filter((pid) => existsSync(`/proc/${pid}`)), [])
    assert.deepStrictEqual(left(), [])
  })
})
