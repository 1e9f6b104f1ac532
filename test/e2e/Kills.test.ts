/**
 * Each process killed, and stopped for a while, at each arrow of a migration's sequence. The process at the arrow stops
 * itself there ({@link "./Breakpoint.ts"}), so nothing depends on time. Whatever is killed: both sides that are left say
 * what has happened, before the latch the guest goes on at the source, no wrong byte is ever seen, nothing is left over.
 * Whoever is stopped is waited for. All of it: `npm run test:kills`; otherwise every few.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"
import { type Arrow, arrows, type Process } from "./Arrows.ts"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"

const whole = process.env["POSTCOPY_TEST_WHOLE"] === "1"

const victims: ReadonlyArray<Process> = ["source", "destination", "daemon"]
const signals = ["SIGKILL", "SIGSTOP"] as const
type Signal = typeof signals[number]

const every = signals.flatMap((signal) =>
  victims.flatMap((victim) => arrows.map((arrow) => ({ arrow, signal, victim, name: arrow.name })))
)
/** Every eleventh: each arrow, victim and signal is among them, no two of them always together. */
const cases = whole ? every : every.filter((_, i) => i % 11 === 3)

const stateOf = (pid: number): string => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3)
  } catch {
    return "gone"
  }
}

const reached = async (pid: number, ...states: ReadonlyArray<string>): Promise<void> => {
  while (!states.includes(stateOf(pid))) await new Promise(setImmediate)
}

/** The pid of the process that has come to the arrow, stopped. */
const stopped = (...at: ReadonlyArray<Host.Running>): Promise<number> =>
  new Promise((resolve, reject) => {
    for (const running of at) {
      let text = ""
      running.child.stderr!.on("data", (chunk: Buffer) => {
        text += chunk.toString()
        const pid = /^arrow (\d+)$/m.exec(text)?.[1]
        if (pid !== undefined) resolve(reached(Number(pid), "T").then(() => Number(pid)))
      })
      void running.ended.then(({ stderr }) => reject(new Error(`ended before the arrow was reached: ${stderr}`)))
    }
  })

/** What a process has open, without its numbers. */
const open = (pid: number): ReadonlyArray<string> =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\[\d+\]/, "")]
    } catch {
      return [] // the descriptor of the reading itself
    }
  }).sort()

const stage = async (arrow: Arrow) => {
  const dir = Host.directory()
  const { module, witness } = Modules.watched(dir)
  const env = {
    POSTCOPY_TEST_ARROW: arrow.name,
    NODE_OPTIONS: `--disable-warning=ExperimentalWarning --import ${
      fileURLToPath(new URL("Breakpoint.ts", import.meta.url))
    }`
  }
  const options = { memory: 1, env }
  const [from, to] = await Promise.all([
    Host.source(dir, module, options),
    Host.destination(dir, module, `unix:${join(dir, "incoming")}`, options)
  ])
  const daemon = Host.daemonOf(to)
  const pids = { source: from.pid, destination: to.pid, daemon }
  const before = open(from.pid)
  const arrived = stopped(from, to)
  const sending = from.send(to.uri)
  return { dir, witness, from, to, pids, before, sending, at: await arrived }
}

type Stage = Awaited<ReturnType<typeof stage>>

/** False when it has gone: the daemon's work may be done when the source has the EOC. */
const send = (pid: number, signal: NodeJS.Signals): boolean => {
  if (["gone", "Z"].includes(stateOf(pid))) return false
  return process.kill(pid, signal)
}

const resume = (pid: number) => send(pid, "SIGCONT")

/** What the destination comes to say: complete, or failed with the guest's whereabouts. */
const outcomeOf = async (to: Host.Running): Promise<string> => {
  const { error, event } = await to.line(({ event }) => event === "completed" || event === "failed")
  return event === "completed" ? "completed" : String(error.guest ?? "none")
}

const nothingLeft = async ({ dir, from, to, witness }: Stage, victim: Process | undefined) => {
  if (victim !== "source") await from.quit()
  // A destination that has failed before the switchover ends by itself.
  if (victim !== "destination" && (await Promise.race([to.ended, undefined])) === undefined) {
    await Promise.race([to.ended, to.quit().catch(() => undefined)])
  }
  // The daemon has its parent's stderr, whose end `ended` waits for.
  await Promise.all([from.ended, to.ended])
  assert.isFalse(existsSync(witness), "the guest saw a wrong byte")
  const killed = victim === "source" ? from.control : victim === "destination" ? to.control : undefined
  // Nobody can clean up after SIGKILL: its own control socket is stale, and is taken over by the next.
  const left = Host.leftIn(dir).filter((name) => killed === undefined || !join(dir, name).startsWith(killed))
  assert.deepEqual(left, [])
}

const kill = async (arrow: Arrow, victim: Process) => {
  const all = await stage(arrow)
  const { at, before, from, pids, sending, to } = all
  // A kill is not done when the call is: the kernel may take its time to end a process.
  if (send(pids[victim], "SIGKILL")) await reached(pids[victim], "Z", "gone")
  // A destination that is not stopped sees the end of its daemon, and says so, before the source goes on to its latch.
  if (victim === "daemon" && arrow.phase !== "after" && arrow.at === "source") await to.event("failed")
  if (pids[victim] !== at) resume(at)

  if (victim !== "source") {
    const { code, error } = await sending
    if (arrow.phase === "before") {
      assert.strictEqual(code, 75, error?.message)
      assert.match(error!.message, /the guest still runs at the source/)
      const { answer } = await from.call({ op: "verify" })
      assert.isTrue(answer.ok)
    } else {
      // Confirmed already, or told to go by a daemon that saw the guest's process end; else the source says what it knows.
      assert.include([0, 70], code, error?.message)
      if (code === 70) assert.match(error!.message, /the guest (may or may not run|runs) at the destination/)
      // It never runs here again.
      assert.isDefined((await from.call({ op: "status" })).error)
    }
    // The control socket's connection for the last answer may still be there.
    while (open(from.pid).length > before.length) await new Promise(setImmediate)
    assert.deepEqual(open(from.pid), before)
  }
  if (victim !== "destination") {
    const outcome = await outcomeOf(to)
    if (arrow.phase !== "after") {
      assert.strictEqual(outcome, "source")
      const { code, lines } = await to.ended
      assert.strictEqual(code, 70)
      assert.deepEqual(lines.map(({ event }) => event), ["listening", "failed"])
    } else {
      assert.include(["parked", "destination", "completed"], outcome)
      if (outcome === "parked") assert.deepInclude(await to.status(), { state: "failed" })
      else assert.isTrue((await to.call({ op: "verify" })).answer.ok)
    }
  }
  await nothingLeft(all, victim)
}

const stop = async (arrow: Arrow, victim: Process) => {
  const all = await stage(arrow)
  const { at, from, pids, sending, to } = all
  if (send(pids[victim], "SIGSTOP")) await reached(pids[victim], "T")
  if (pids[victim] !== at) resume(at)
  // Whoever is not stopped answers, whatever the other one does.
  const alive = (process: Process) => process !== victim && pids[process] !== at
  if (alive("source")) assert.include(["migrating", "postcopy", "completed"], (await from.status()).state)
  if (alive("destination")) assert.notStrictEqual((await to.status()).state, "failed")
  resume(pids[victim])
  const { code, error } = await sending
  assert.strictEqual(code, 0, error?.message)
  await to.event("completed")
  assert.isTrue((await to.call({ op: "verify" })).answer.ok)
  await nothingLeft(all, undefined)
}

const run: Record<Signal, (arrow: Arrow, victim: Process) => Promise<void>> = { SIGKILL: kill, SIGSTOP: stop }

describe("at the moment when", { timeout: 60_000 }, () => {
  it.each(cases)("$name, $signal to the $victim", ({ arrow, signal, victim }) => run[signal](arrow, victim))
})
