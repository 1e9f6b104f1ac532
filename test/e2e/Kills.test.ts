/**
 * Each process killed, and stopped for a while, at each arrow of a migration's sequence. The process at the arrow stops
 * itself there ({@link "./Breakpoint.ts"}), so nothing depends on time. Whatever is killed: both sides that are left say
 * what has happened, before the latch the guest goes on at the source, no wrong byte is ever seen, nothing is left over.
 * Whoever is stopped is waited for. All of it: `npm run test:kills`; otherwise every few.
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"
import { type Arrow, arrows, type Process } from "./Arrows.ts"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"
import { endDestination, open, openAgain, outcomeOf, reached, send } from "./Remains.ts"

const whole = process.env["POSTCOPY_TEST_WHOLE"] === "1"

const victims: ReadonlyArray<Process> = ["source", "destination", "daemon"]
const signals = ["SIGKILL", "SIGSTOP"] as const
type Signal = typeof signals[number]

const every = signals.flatMap((signal) =>
  victims.flatMap((victim) => arrows.map((arrow) => ({ arrow, signal, victim, name: arrow.name })))
)
/** Here the guest waits for a page that the source was asked for and, stopped, does not send. */
const stalls = "pages are asked for"
/** Every eleventh: each victim and signal is among them, no two of them always together; and the one that stalls. */
const cases = whole
  ? every
  : every.filter(({ name, signal, victim }, i) =>
    i % 11 === 3 || name === stalls && signal === "SIGSTOP" && victim === "source"
  )

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
  // With all of it there by itself a guest that is slow to begin would have nothing to ask for.
  const sending = from.send(to.uri, arrow.name === stalls ? { maxBandwidth: 1_000_000 } : {})
  return { dir, witness, from, to, pids, before, sending, at: await arrived }
}

type Stage = Awaited<ReturnType<typeof stage>>

const resume = (pid: number) => send(pid, "SIGCONT")

/** What a process that is killed leaves: its control socket, and a listening one that it has not accepted from yet. */
const stale = ({ dir, from, to }: Stage, victim: Process | undefined, arrow: Arrow): ReadonlyArray<string> => {
  if (victim === "source") return [from.control]
  if (victim !== "destination") return []
  return arrow.at === "source" && arrow.phase === "before" ? [to.control, join(dir, "incoming")] : [to.control]
}

const nothingLeft = async (all: Stage, victim: Process | undefined, arrow: Arrow) => {
  const { dir, from, to, witness } = all
  if (victim !== "source") await from.quit()
  if (victim !== "destination") await endDestination(to)
  // The daemon has its parent's stderr, whose end `ended` waits for.
  await Promise.all([from.ended, to.ended])
  assert.isFalse(existsSync(witness), "the guest saw a wrong byte")
  // Nobody can clean up after SIGKILL: such a socket is taken over by the next.
  const killed = stale(all, victim, arrow)
  assert.deepEqual(Host.leftIn(dir).filter((name) => !killed.some((path) => join(dir, name).startsWith(path))), [])
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
    assert.deepEqual(await openAgain(from.pid, before), before)
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
  await nothingLeft(all, victim, arrow)
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
  // Silence is not death: it is told, and the pages come when the source goes on.
  if (arrow.name === stalls && victim === "source") await to.reaches(({ state }) => state === "stalled")
  resume(pids[victim])
  const { code, error } = await sending
  assert.strictEqual(code, 0, error?.message)
  await to.event("completed")
  assert.isTrue((await to.call({ op: "verify" })).answer.ok)
  await nothingLeft(all, undefined, arrow)
}

const run: Record<Signal, (arrow: Arrow, victim: Process) => Promise<void>> = { SIGKILL: kill, SIGSTOP: stop }

// A case takes two seconds on two idle cores; whatever takes minutes hangs.
describe("at the moment when", { timeout: 180_000 }, () => {
  it.each(cases)("$name, $signal to the $victim", ({ arrow, signal, victim }) => run[signal](arrow, victim))
})
