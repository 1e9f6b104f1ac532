/**
 * One seed: a source and a destination, each a process with the engine in it, and the umem daemon; a guest that moves;
 * what the scenario says goes wrong. Then the questions: was every byte right, was there one owner, did everybody come to
 * an end, is anything left open?
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type { GuestHandle } from "../../src/GuestHandle.ts"
import { type Incoming, listen, migrate, run as runGuest } from "../../src/Migration.ts"
import type { MigrationError } from "../../src/MigrationError.ts"
import type { Report } from "../../src/Report.ts"
import { Guest } from "./GuestThreads.ts"
import { History, Violation } from "./History.ts"
import * as HostileDestination from "./HostileDestination.ts"
import * as HostileSource from "./HostileSource.ts"
import { Kernel } from "./Kernel.ts"
import { Random } from "./Random.ts"
import { RequestWatch } from "./RequestWatch.ts"
import type { Scenario, Victim } from "./Scenario.ts"
import * as Services from "./Services.ts"
import { Trace } from "./Trace.ts"
import { shared } from "./Transforms.ts"
import { MILLI, type Process, World } from "./World.ts"

/** How a user tries to resume a guest that another migration holds. */
const patience = { times: 100, schedule: Schedule.spaced(1) }
/** Virtual milliseconds after which whoever still waits waits for ever: beyond every bound of the engine's own. */
const DEADLINE = 120_000
/** A broken link is told of within this time (milliseconds), whoever is not stopped. */
const MOST_MILLIS_TO_SAY = 5_000
const URI = "unix:/simulated"

export interface Result {
  readonly seed: number
  readonly hash: string
  readonly violations: ReadonlyArray<string>
  readonly steps: number
  /** How it ended, in words: for the trace and the statistics. */
  readonly outcome: string
  readonly lines: ReadonlyArray<string>
}

/** What became of the two ends. */
interface Ends {
  source: Exit.Exit<Report, MigrationError> | undefined
  destination: Exit.Exit<Report, MigrationError> | undefined
  incoming: Incoming | undefined
  handle: GuestHandle | undefined
  destinationRan: boolean
  sourceQuit: boolean
  destinationQuit: boolean
}

const describe = (exit: Exit.Exit<Report, unknown> | undefined): string => {
  if (exit === undefined) return "none"
  if (Exit.isSuccess(exit)) return exit.value.state
  const failure = exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error as MigrationError | undefined
  return failure === undefined ? `died (${String(exit.cause)})` : `${failure.reason._tag}, guest ${failure.guest}`
}

const guestOf = (exit: Exit.Exit<Report, MigrationError> | undefined): string | undefined => {
  if (exit === undefined || Exit.isSuccess(exit)) return undefined
  return exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error.guest
}

export const run = (scenario: Scenario, readable: boolean): Result => {
  const { faults } = scenario
  const trace = new Trace(readable)
  const world = new World(new Random(scenario.seed, 2), trace)
  trace.time = () => world.now / MILLI
  world.stepNanos = scenario.stepNanos
  const violations: Array<string> = []
  const violated = (violation: Violation) => {
    if (violations.length < 10) violations.push(violation.message)
    trace.say(() => `VIOLATION ${violation.message}`)
  }
  world.uncaught = (process, error) => {
    const text = error instanceof Error ? error.stack ?? error.message : String(error)
    violated(new Violation(`${process.name} threw and nobody caught it: ${text}`))
    process.end("an uncaught exception")
  }
  /** Whether anything went wrong that an end other than success may come from. */
  let disturbed = scenario.hostile !== undefined
  const count = (what: string) => {
    shared.cover(what)
    if (!what.startsWith("fault: ")) return
    disturbed = true
    trace.note(what)
  }
  const covering = shared.cover
  if (readable) {
    shared.cover = (what) => {
      covering(what)
      trace.say(() => `    ${what}`)
    }
  }
  for (const [name, value] of Object.entries(scenario.limits)) {
    for (const set of shared.limits.get(name) ?? []) set(value)
  }
  for (const set of shared.limits.get("MESSAGE_ROOM") ?? []) set(8 * 1024)
  for (const set of shared.limits.get("BUFFER_BYTES") ?? []) set(2 * 1024)
  trace.say(() => JSON.stringify(scenario))

  const ends: Ends = {
    source: undefined,
    destination: undefined,
    incoming: undefined,
    handle: undefined,
    destinationRan: false,
    sourceQuit: false,
    destinationQuit: false
  }
  const history = new History(scenario.blocks, scenario.hostPageSize)
  const kernel = (side: "source" | "destination") =>
    new Kernel({
      pageSize: scenario.hostPageSize,
      memfd: scenario.memfd,
      huge: scenario.huge,
      gap: scenario.gap,
      blocks: scenario.blocks,
      count: (what) => {
        if (side === "destination") count(what)
      }
    })
  const here = world.spawn("source")
  const there = world.spawn("guest")
  here.main.weight = scenario.weights.source
  there.main.weight = scenario.weights.guest
  here.budget = there.budget = scenario.budget
  let daemon: Process | undefined

  const throwing = (side: "source" | "destination") => {
    const found = faults.find((fault) => fault._tag === "GuestThrows" && fault.side === side)
    return found?._tag === "GuestThrows" ? found.at : undefined
  }
  const state = new Uint8Array(8 + scenario.seed % 40).fill(scenario.seed % 251)
  const host = (process: Process, side: "source" | "destination") => {
    const guest = new Guest({
      world,
      process,
      kernel: kernel(side),
      history,
      side,
      vcpus: scenario.vcpus[side],
      operations: scenario.operations[side],
      discards: scenario.discards,
      seeks: side === "destination" ? scenario.seeks : undefined,
      deviceState: () => state,
      onStep: () => {
        const other = side === "source" ? atDestination : atSource
        if (other.running && !other.lost && other.options.process.alive) {
          violated(new Violation("the guest runs on both sides"))
        }
      },
      onRun: () => {
        trace.note(`the guest runs at the ${side}`)
        if (side === "destination") {
          ends.destinationRan = true
          if (!scenario.background) guest.sweepAll()
        } else if (ends.destinationRan) violated(new Violation("the guest runs at the source again"))
      },
      throwsAt: throwing(side),
      restoreFails: faults.some(({ _tag }) => _tag === "RestoreFails"),
      count,
      violated
    })
    for (const thread of guest.threads) thread.weight = scenario.weights.vcpu
    return guest
  }
  const atSource: Guest = host(here, "source")
  const atDestination: Guest = host(there, "destination")
  there.onExit.push(() => {
    atDestination.options.kernel.gone = true
  })

  // ------------------------------------------------------------------------------------------------ the network
  const network = new Services.Network()
  const watch = new RequestWatch()
  let missingAtEoc = -1
  /** When the link broke, and when each side had said what became of its migration. Nanoseconds. */
  let brokenAt: number | undefined
  const saidAt = { source: 0, destination: 0 }
  network.onCut = (cut) => {
    count(`fault: link ${cut.kind}`)
    if (cut.kind === "reset") brokenAt ??= world.now
  }
  network.prepare = ({ ends: [source, destination] }) => {
    for (const fault of faults) {
      if (fault._tag !== "Cut") continue
      ;(fault.forth ? source : destination).outgoing.cut = fault.cut
    }
    if (scenario.hostile === "destination") return
    destination.outgoing.onWrite = (bytes) => {
      try {
        watch.push(bytes)
      } catch (error) {
        if (!(error instanceof Violation)) throw error
        violated(error)
      }
      if (!watch.eoc || missingAtEoc >= 0) return
      missingAtEoc = atDestination.options.kernel.missing
      const ended = ends.destinationQuit || ends.destination !== undefined || lettingGo || !there.alive
      const refused = faults.some(({ _tag }) => _tag === "RestoreFails")
      if (missingAtEoc > 0 && !ended && !refused) {
        violated(new Violation(`the end of connection comes with ${missingAtEoc} pages missing, and nobody quit`))
      }
    }
  }
  const provide = (process: Process, guest: Guest) =>
    Services.provide(process, {
      world,
      scenario,
      network,
      kernel: guest.options.kernel,
      guest,
      count,
      violated,
      daemonStarts: !faults.some(({ _tag }) => _tag === "DaemonDoesNotStart"),
      onDaemon: (process) => {
        daemon = process
        if (faults.some(({ _tag }) => _tag === "DaemonDoesNotStart")) count("fault: daemon does not start")
      }
    })
  provide(here, atSource)
  provide(there, atDestination)

  // ------------------------------------------------------------------------------------------------ the two programs
  const listening = Deferred.makeUnsafe<void>()
  const quit = { source: Deferred.makeUnsafe<void>(), destination: Deferred.makeUnsafe<void>() }
  const tell = (process: Process, signal: Deferred.Deferred<void>) =>
    process.scheduleTask(() => Deferred.doneUnsafe(signal, Effect.void))
  /** The other side's signal, as a task of this process. */
  const whenListening = Effect.callback<void>((resume) => {
    const look = () => {
      if (Deferred.isDoneUnsafe(listening) || !there.alive) here.scheduleTask(() => resume(Effect.void))
      else world.after(0.5, here, look)
    }
    look()
  })

  const whenEnded = Effect.gen(function*() {
    while (ends.source === undefined) yield* Effect.sleep(5)
  })

  const sourceProgram = Effect.gen(function*() {
    const guest = yield* runGuest("simulated")
    ends.handle = guest
    if (faults.some(({ _tag }) => _tag === "NobodyListens")) count("fault: nobody listens")
    else yield* whenListening
    yield* Effect.sleep(scenario.before)
    ends.source = yield* Effect.exit(
      migrate({ guest, to: URI, background: scenario.background, maxBandwidth: scenario.maxBandwidth })
    )
    saidAt.source = world.now
    trace.note(`the source ends: ${describe(ends.source)}`)
    yield* Deferred.await(quit.source)
  }).pipe(Effect.scoped)
  const destinationProgram = Effect.gen(function*() {
    const incoming = yield* listen({ guest: "simulated", from: URI, flags: scenario.flags })
    ends.incoming = incoming
    Deferred.doneUnsafe(listening, Effect.void)
    yield* Effect.forkDetach(Effect.map(Effect.exit(incoming.report), (exit) => {
      ends.destination = exit
      saidAt.destination = world.now
      trace.note(`the destination ends: ${describe(exit)}`)
    }))
    yield* Deferred.await(quit.destination)
  }).pipe(
    Effect.scoped,
    Effect.onExit((exit) =>
      Effect.sync(() => {
        Deferred.doneUnsafe(listening, Effect.void)
        if (Exit.isFailure(exit)) ends.destination ??= Exit.failCause(exit.cause)
      })
    )
  )

  /** What a process leaves when its scopes are closed: nothing, but for the userfaultfd of a guest that is parked. */
  const leaving = (process: Process, exit: Exit.Exit<unknown, unknown>) => {
    if (Exit.isFailure(exit) && process === here && !atSource.lost) {
      violated(new Violation(`the source's program died: ${String(exit.cause)}`))
    }
    for (const { what } of process.open.values()) {
      if (what === Services.PARKED) continue
      violated(new Violation(`${process.name} leaves ${what} open`))
    }
    const timers = world.timersOf(process)
    if (timers > 0) violated(new Violation(`${process.name} leaves ${timers} timers running`))
    process.end("exit status 0")
  }
  const ending = (process: Process) => (exit: Exit.Exit<void, unknown>) => {
    if (Exit.isFailure(exit)) violated(new Violation(`a hostile peer died: ${String(exit.cause)}`))
    process.end("exit status 0")
  }
  const { random } = world
  const wrong = HostileSource.wrongOf(random)
  if (scenario.hostile === "source") {
    disturbed = wrong !== "twice"
    const hostile = { random, scenario, history, kernel: atSource.options.kernel, uri: URI, state, count }
    here.start(Effect.andThen(whenListening, HostileSource.program(hostile, wrong)), ending(here))
  } else here.start(sourceProgram, (exit) => leaving(here, exit))
  if (scenario.hostile === "destination") {
    const listens = () => Deferred.doneUnsafe(listening, Effect.void)
    there.start(HostileDestination.program({ random, scenario, uri: URI, count }, listens), ending(there))
  } else there.start(destinationProgram, (exit) => leaving(there, exit))

  // ------------------------------------------------------------------------------------------------ what goes wrong
  const victim = (name: Victim): Process | undefined => name === "source" ? here : name === "guest" ? there : daemon
  const due: Array<{ readonly step: number; readonly run: () => void }> = []
  for (const fault of faults) {
    switch (fault._tag) {
      case "Crash":
        due.push({
          step: fault.step,
          run: () => {
            const process = victim(fault.victim)
            if (process === undefined || !process.alive) return
            count(`fault: crash of ${fault.victim}`)
            process.end("signal SIGKILL")
          }
        })
        break
      case "Stop":
        due.push({
          step: fault.step,
          run: () => {
            const process = victim(fault.victim)
            if (process === undefined || !process.alive) return
            count(`fault: stop of ${fault.victim}`)
            process.stop()
            world.after(fault.millis, undefined, () => process.resume())
          }
        })
        break
      case "Cancel":
        due.push({
          step: fault.step,
          run: () => {
            const guest = ends.handle
            if (guest === undefined || !here.alive || ends.source !== undefined) return
            count("fault: cancel")
            here.start(Effect.ignore(guest.cancel), () => {})
          }
        })
        break
      case "Quit":
        due.push({
          step: fault.step,
          run: () => {
            if (!there.alive || ends.incoming === undefined || ends.destination !== undefined) return
            count("fault: quit of destination")
            ends.destinationQuit = true
            tell(there, quit.destination)
          }
        })
        break
      case "NoMemory":
        atDestination.options.kernel.exhaustedAt = fault.missing
        break
    }
  }
  for (const { step, what } of scenario.actions) {
    due.push({
      step,
      run: () => {
        const guest = ends.handle
        if (guest === undefined || !here.alive || lettingGo) return
        act(what, guest)
      }
    })
  }
  /** What users have under way; nothing new once they let go. */
  const acts = new Set<{ readonly alive: boolean }>()
  /** Those whose process is gone are not waited for. */
  const acting = () => Array.from(acts).some(({ alive }) => alive)
  let lettingGo = false
  const act = (what: Scenario["actions"][number]["what"], guest: GuestHandle) => {
    trace.note(`user: ${what}`)
    const start = <A, E>(process: Process, effect: Effect.Effect<A, E>) => {
      const act = {
        get alive() {
          return process.alive
        }
      }
      if (what !== "call") acts.add(act)
      process.start(Effect.exit(effect), () => {
        acts.delete(act)
      })
    }
    const there_ = ends.incoming
    switch (what) {
      case "limit":
        return start(here, guest.setMaxBandwidth(world.random.pick([undefined, 10_000, 1_000_000])))
      case "call":
        if (there_ !== undefined && there.alive) start(there, there_.guest.call(1))
        return start(here, guest.call(1))
      case "pause":
        return start(
          here,
          Effect.gen(function*() {
            yield* guest.pause
            yield* Effect.sleep(1)
            // Refused while a migration is under way; and there may be another one after the first.
            yield* Effect.catch(guest.resume, () => Effect.andThen(whenEnded, Effect.retry(guest.resume, patience)))
          })
        )
      case "status":
        if (there_ !== undefined && there.alive) start(there, there_.guest.status)
        return start(here, guest.status)
      case "again":
        // Whichever is first is the migration that there is.
        disturbed = true
        return start(here, migrate({ guest, to: "unix:/elsewhere" }))
    }
  }
  due.sort((a, b) => a.step - b.step)
  world.beforeStep = () => {
    while (due.length > 0 && due[0]!.step <= world.steps) due.shift()!.run()
  }

  // ------------------------------------------------------------------------------------------------ the run
  const over = () =>
    violations.length > 0 ||
    (ends.source !== undefined && !acting() || !here.alive || scenario.hostile === "source") &&
      (ends.destination !== undefined || !there.alive || scenario.hostile === "destination")
  let outcome = world.run(DEADLINE * MILLI, over)
  if (outcome !== "done" && ends.destination !== undefined && Exit.isFailure(ends.destination) && there.alive) {
    // Whoever waits for a destination that has said that it failed waits for its operator, who ends it.
    ends.destinationQuit = true
    tell(there, quit.destination)
    outcome = world.run(world.now + DEADLINE * MILLI, over)
  }
  if (outcome !== "done") {
    const waits = [
      ...(ends.source === undefined && here.alive && scenario.hostile !== "source" ? ["source"] : []),
      ...(ends.destination === undefined && there.alive && scenario.hostile !== "destination" ? ["destination"] : [])
    ]
    // A source that went away before the switchover, or never came, leaves a listener that waits: that is its job.
    const waiting = waits.length === 1 && waits[0] === "destination" && !ends.destinationRan &&
      network.listening.has(URI)
    if (!waiting) violated(new Violation(`${waits.join(" and ")} still wait when nothing more happens`))
  }
  if (violations.length === 0) judge()
  if (violations.length === 0) leave()

  /** Holds what the two ends say against what happened. */
  function judge(): void {
    const { kernel } = atDestination.options
    const source = ends.source
    const destination = ends.destination
    const fail = (text: string) => violated(new Violation(text))
    // What an early end leaves out the guest may have given back.
    const wrongly = scenario.hostile === "source" && wrong !== "twice" && wrong !== "an early EOS"
    if (wrongly && destination !== undefined && Exit.isSuccess(destination)) {
      fail(`the destination completed, and its source sent ${wrong}`)
    }
    if (scenario.hostile === "destination" && source !== undefined && Exit.isSuccess(source)) {
      fail("the source completed, and its destination was hostile")
    }
    if (!disturbed) {
      if (scenario.hostile === undefined && (source === undefined || Exit.isFailure(source))) {
        fail(`nothing went wrong, and the source ends: ${describe(source)}`)
      }
      if (destination === undefined || Exit.isFailure(destination)) {
        fail(`nothing went wrong, and the destination ends: ${describe(destination)}`)
      }
    }
    // Neither who is stopped nor who is behind a silence can know.
    const knows = !faults.some((fault) => fault._tag === "Stop" || fault._tag === "Cut" && fault.cut.kind === "silence")
    if (brokenAt !== undefined && knows) {
      for (const [side, at] of Object.entries(saidAt)) {
        const millis = (at - brokenAt) / MILLI
        if (millis > MOST_MILLIS_TO_SAY) fail(`the ${side} says what happened ${millis} ms after the link broke`)
      }
    }
    for (const [side, exit] of [["source", source], ["destination", destination]] as const) {
      if (describe(exit).startsWith("died")) fail(`the ${side}'s migration ${describe(exit)}`)
    }
    if (source !== undefined && Exit.isSuccess(source) && scenario.hostile !== "destination") {
      if (!watch.eoc) fail("the source completed without an end of connection")
    }
    if (destination !== undefined && Exit.isSuccess(destination)) {
      if (kernel.missing > 0) fail(`the destination completed with ${kernel.missing} host pages missing`)
      const { pages } = destination.value
      if (pages.onDemand + pages.background + pages.removed !== pages.total) {
        fail(`the report's pages do not add up: ${JSON.stringify(pages)}`)
      }
    }
    if (source !== undefined && Exit.isFailure(source) && guestOf(source) === "source") {
      if (ends.destinationRan) fail("the source says that its guest still runs there, and it ran at the destination")
    }
    if (guestOf(destination) === "source" && ends.destinationRan) {
      fail("the destination says that the guest is at the source, and it ran here")
    }
    verify()
  }

  /** Has the guest, wherever it is, touch every page once more. */
  function verify(): void {
    const { kernel } = atDestination.options
    const runs = atSource.running && here.alive
      ? atSource
      : atDestination.running && there.alive
      ? atDestination
      : undefined
    if (guestOf(ends.source) === "source" && here.alive && runs !== atSource && !atSource.lost) {
      violated(new Violation("the source says that the guest still runs there, and it does not"))
    }
    if (runs === undefined) return
    runs.sweepAll()
    world.run(world.now + DEADLINE * MILLI, () => violations.length > 0 || runs.idle)
    if (violations.length > 0 || runs.idle || runs.lost) return
    if (runs === atSource) violated(new Violation("the guest's threads wait at the source"))
    else if (ends.destination !== undefined && Exit.isSuccess(ends.destination)) {
      violated(new Violation("the guest's threads wait at a destination that completed"))
    } else {
      shared.cover("outcome: parked")
      if (kernel.holders < 1 && there.alive) violated(new Violation("a parked guest lost its userfaultfd"))
      if (guestOf(ends.destination) !== "parked" && guestOf(ends.destination) !== "none") {
        violated(new Violation(`the guest is parked, and the destination says: ${describe(ends.destination)}`))
      }
    }
  }

  /** Both owners let go: everything must end. */
  function leave(): void {
    lettingGo = true
    world.run(world.now + DEADLINE * MILLI, () => violations.length > 0 || !acting() || !here.alive)
    tell(here, quit.source)
    tell(there, quit.destination)
    if (scenario.hostile === "source") here.end("signal SIGKILL")
    if (scenario.hostile === "destination") there.end("signal SIGKILL")
    world.run(world.now + DEADLINE * MILLI, () => violations.length > 0 || world.processes.every(({ alive }) => !alive))
    if (violations.length > 0) return
    for (const { alive, name } of world.processes) if (alive) violated(new Violation(`${name} does not end`))
    if (network.listening.size > 0) violated(new Violation("somebody still listens"))
  }

  shared.cover = covering
  shared.cover(`outcome: source ${describe(ends.source)}`)
  shared.cover(`outcome: destination ${describe(ends.destination)}`)
  return {
    seed: scenario.seed,
    hash: trace.hash,
    violations,
    steps: world.steps,
    outcome: `source ${describe(ends.source)}; destination ${describe(ends.destination)}`,
    lines: trace.lines ?? []
  }
}
