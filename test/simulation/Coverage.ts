/**
 * What a full run has to reach: every transition of the four state machines that its own function allows, found by
 * walking it from the beginning; every outcome of a page table and of the kernel; every kind of fault. What cannot arise is
 * listed with the reason, and a run that reaches it after all fails, too: then the reason is wrong.
 */
import * as MigrationState from "../../src/protocol/umem/MigrationState.ts"
import * as PisState from "../../src/protocol/umem/PisState.ts"
import * as PoState from "../../src/protocol/umem/PoState.ts"
import * as UmemState from "../../src/protocol/umem/UmemState.ts"

const bits = {
  UMEM: ["EOS_RECEIVED", "EOC_SENT", "QUIT_RECEIVED", "QUIT_QUEUED", "QUIT_SENT", "EOC_QUEUED", "FAILED"],
  PIS: ["QUIT_RECEIVED", "QUIT_QUEUED", "QUIT_SENT", "FAILED"]
}

/** The bits that a step sets, by name. */
const entered = (machine: keyof typeof bits, before: number, after: number): string =>
  bits[machine].filter((_, i) => ((after & ~before) >> i) & 1).join("+") || "nothing"

const umemEvents: ReadonlyArray<UmemState.UmemEvent> = [
  { _tag: "Eos", complete: true },
  { _tag: "Eos", complete: false },
  { _tag: "AllComplete" },
  { _tag: "Quit" },
  { _tag: "ChannelEof" },
  { _tag: "ChannelBroken" },
  { _tag: "LinkWritten" },
  { _tag: "ChannelWritten" },
  { _tag: "LinkLost" },
  { _tag: "InstallFailed" }
]
const pisEvents: ReadonlyArray<PisState.PisEvent> = [
  { _tag: "Quit" },
  { _tag: "QuitRequested" },
  { _tag: "QuitWritten" },
  { _tag: "TriggerPageFault" },
  { _tag: "Error" },
  { _tag: "Unmapped" },
  { _tag: "ChannelEof" },
  { _tag: "TurnEnd" }
]
const poEvents: ReadonlyArray<PoState.PoEvent> = [
  { _tag: "Init" },
  { _tag: "OnDemand" },
  { _tag: "OnDemandCont" },
  { _tag: "Background" },
  { _tag: "BackgroundCont" },
  { _tag: "Remove" },
  { _tag: "Eoc" },
  { _tag: "ReceiveError" },
  { _tag: "ReceiveEof" },
  { _tag: "Tick", background: true, dirty: 1 },
  { _tag: "Tick", background: true, dirty: 0 }
]
const migrationEvents: ReadonlyArray<MigrationState.MigrationEvent> = [
  { _tag: "Connected" },
  { _tag: "ConnectFailed" },
  { _tag: "Iterated", result: 1 },
  { _tag: "Drained" },
  { _tag: "CompletionFailed" },
  { _tag: "Stepped", result: 1 },
  { _tag: "Stepped", result: -1 },
  { _tag: "Cancel" }
]

/** Walks a machine from its first state; only steps that do something count. */
const walk = <S, E>(
  first: S,
  events: ReadonlyArray<E>,
  step: (state: S, event: E) => { readonly state: S; readonly actions: ReadonlyArray<unknown> },
  key: (before: S, event: E, after: S) => string
): Set<string> => {
  const keys = new Set<string>()
  const seen = new Set([JSON.stringify(first)])
  for (const todo = [first]; todo.length > 0;) {
    const before = todo.pop()!
    for (const event of events) {
      const { actions, state } = step(before, event)
      const same = JSON.stringify(state) === JSON.stringify(before)
      if (same && actions.length === 0) continue
      keys.add(key(before, event, state))
      if (same || seen.has(JSON.stringify(state))) continue
      seen.add(JSON.stringify(state))
      todo.push(state)
    }
  }
  return keys
}

const tickOf = (event: PoState.PoEvent) =>
  event._tag === "Tick" ? ` background ${event.dirty > 0 ? "dirty" : "clean"}` : ""

const eventOf = (event: { readonly _tag: string; readonly complete?: boolean }) =>
  event.complete === undefined ? event._tag : `${event._tag} ${event.complete}`

const expected = (): Set<string> =>
  new Set([
    ...walk(UmemState.initial, umemEvents, UmemState.transition, (before, event, after) =>
      `UMEM ${eventOf(event)} sets ${entered("UMEM", before, after)}`),
    ...walk(PisState.initial, pisEvents, PisState.transition, (before, event, after) =>
      `PIS ${event._tag} sets ${entered("PIS", before, after)}`),
    ...walk(PoState.begin.state, poEvents, PoState.transition, (before, event) =>
      `PO ${before} ${event._tag}${tickOf(event)}`),
    ...walk(MigrationState.initial, migrationEvents, MigrationState.transition, (before, event) =>
      `Migration ${before.status}/${before.phase} ${event._tag}${"result" in event ? ` ${event.result}` : ""}`),
    ...["request", "known", "removed", "installed"].map((outcome) =>
      `PageTable fault ${outcome}`
    ),
    ...["stage", "install"].map((outcome) =>
      `PageTable received ${outcome}`
    ),
    ...["missing", "complete", "installed", "removed", "waited for", "untold"].map((was) =>
      `PageTable remove ${was}`
    ),
    ...["COPY", "ZEROPAGE", "CONTINUE"].flatMap((call) => [`kernel ${call} done`, `kernel ${call} -11`]),
    "kernel COPY -12",
    "kernel ZEROPAGE -17",
    "kernel COPY -3",
    ...["link reset", "link end", "link silence", "cancel", "quit of destination", "guest throws", "restore fails"].map(
      (kind) =>
        `fault: ${kind}`
    ),
    ...["nobody listens", "daemon does not start", "kernel has no memory"].map((kind) =>
      `fault: ${kind}`
    ),
    ...["source", "daemon", "guest"].flatMap((who) => [`fault: crash of ${who}`, `fault: stop of ${who}`]),
    "outcome: parked"
  ])

/** What its function allows and nothing here can bring about. */
const impossible: Readonly<Record<string, string>> = {
  "UMEM ChannelEof sets QUIT_RECEIVED+QUIT_QUEUED+EOC_QUEUED":
    "the actor hears of the end of either direction of its one socketpair as ChannelBroken",
  "UMEM ChannelEof sets QUIT_RECEIVED": "the actor hears of the end of either direction as ChannelBroken"
}

/**
 * What takes a user's hand in the very moment in which a migration ends, a source that ends its stream, stops, and has
 * left no room for an end of connection, or a tick between a failure and the end of the sender's life: welcome, and too
 * rare to be asked for of ten thousand seeds.
 */
const optional = new Set([
  "PO ERROR_RECEIVE Tick background dirty",
  "PO ERROR_RECEIVE Tick background clean",
  "UMEM LinkLost sets EOC_SENT",
  "Migration CANCELLED/PRECOPY Cancel",
  "Migration ERROR/PRECOPY Cancel",
  "Migration ERROR/POSTCOPY Cancel",
  "Migration COMPLETED/POSTCOPY Cancel"
])

/** Observed names as they are expected: bits by name, ticks without what does not matter. */
const normal = (what: string): string => {
  const [machine, state, ...event] = what.split(" ")
  if (machine === "UMEM" || machine === "PIS") {
    const before = Number(state)
    const [tag, complete] = event
    const after = machine === "PIS"
      ? PisState.transition(before, { _tag: tag } as PisState.PisEvent)
      : UmemState.transition(before, { _tag: tag, complete: complete === "true" } as UmemState.UmemEvent)
    return `${machine} ${event.join(" ")} sets ${entered(machine, before, after.state)}`
  }
  return what.replace("Tick nobg", "Tick background")
}

/** What a run has not reached, and what it has reached although it cannot be. */
export const gaps = (coverage: ReadonlyMap<string, number>): ReadonlyArray<string> => {
  const reached = new Set(Array.from(coverage.keys(), normal))
  const found: Array<string> = []
  for (const what of expected()) {
    if (impossible[what] === undefined && !optional.has(what) && !reached.has(what)) {
      found.push(`never reached: ${what}`)
    }
  }
  for (const [what, why] of Object.entries(impossible)) {
    if (reached.has(what)) found.push(`reached, and should not be possible: ${what} (${why})`)
  }
  return found
}

/** Everything that was counted; what no seed can reach, with its reason. */
export const print = (coverage: ReadonlyMap<string, number>): void => {
  for (const [what, times] of Array.from(coverage).sort(([a], [b]) => a < b ? -1 : 1)) {
    console.log(`${String(times).padStart(9)}  ${what}`)
  }
  for (const [what, why] of Object.entries(impossible)) console.log(`        -  ${what}: ${why}`)
}
