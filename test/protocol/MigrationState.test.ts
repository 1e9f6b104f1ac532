import { assert, describe, it } from "@effect/vitest"
import * as MigrationState from "../../src/protocol/umem/MigrationState.ts"

type State = MigrationState.MigrationState
type Row = readonly [
  title: string,
  state: State,
  event: MigrationState.MigrationEvent,
  next: State,
  actions: ReadonlyArray<MigrationState.MigrationAction>
]

const setup = MigrationState.initial
const precopy: State = { status: "ACTIVE", phase: "PRECOPY" }
const postcopy: State = { status: "ACTIVE", phase: "POSTCOPY" }
const before = (status: State["status"]): State => ({ status, phase: "PRECOPY" })
const after = (status: State["status"]): State => ({ status, phase: "POSTCOPY" })

const rows: ReadonlyArray<Row> = [
  ["a connection begins the precopy phase", setup, { _tag: "Connected" }, precopy, ["WriteStart", "WriteRound"]],
  ["no connection is a failure", setup, { _tag: "ConnectFailed" }, before("ERROR"), ["Cleanup", "ReportFailure"]],
  ["a cancel before the connection", setup, { _tag: "Cancel" }, before("CANCELLED"), ["Cleanup"]],
  ["a tick before the connection is ignored", setup, { _tag: "Iterated", result: 1 }, setup, []],
  ["a round that fails", precopy, { _tag: "Iterated", result: -1 }, before("ERROR"), ["Cleanup", "ReportFailure"]],
  ["a round that is not the last", precopy, { _tag: "Iterated", result: 0 }, precopy, ["WriteRound"]],
  ["the last round stops the guest", precopy, { _tag: "Iterated", result: 1 }, precopy, [
    "StopGuest",
    "WriteCompletion"
  ]],
  ["everything before EOF drained is the latch", precopy, { _tag: "Drained" }, postcopy, ["WriteEof", "BeginPostcopy"]],
  [
    "a completion that fails lets the guest run on",
    precopy,
    { _tag: "CompletionFailed" },
    before("ERROR"),
    ["RestartGuest", "Cleanup", "ReportFailure"]
  ],
  ["a cancel in precopy lets the guest run on", precopy, { _tag: "Cancel" }, before("CANCELLED"), [
    "RestartGuest",
    "Cleanup"
  ]],
  ["a step that is not the last", postcopy, { _tag: "Stepped", result: 0 }, postcopy, ["StepPostcopy"]],
  ["the last step completes", postcopy, { _tag: "Stepped", result: 1 }, after("COMPLETED"), [
    "Cleanup",
    "ReportSuccess"
  ]],
  ["B17: a step that fails is a failure", postcopy, { _tag: "Stepped", result: -1 }, after("ERROR"), [
    "Cleanup",
    "ReportFailure"
  ]],
  ["B36: a cancel after the switchover is refused and writes nothing", postcopy, { _tag: "Cancel" }, postcopy, [
    "Refuse"
  ]],
  ["a completed migration cannot be cancelled", after("COMPLETED"), { _tag: "Cancel" }, after("COMPLETED"), ["Refuse"]],
  ["a tick of an ended migration is ignored", after("ERROR"), { _tag: "Stepped", result: 1 }, after("ERROR"), []],
  ["a guest whose migration failed before the latch may run", before("ERROR"), { _tag: "Resume" }, before("ERROR"), [
    "RestartGuest"
  ]],
  ["B41: a guest whose migration failed after the latch may not", after("ERROR"), { _tag: "Resume" }, after("ERROR"), [
    "Refuse"
  ]],
  ["B41: a guest that has moved may not run here", after("COMPLETED"), { _tag: "Resume" }, after("COMPLETED"), [
    "Refuse"
  ]],
  ["a guest under way may not run here", postcopy, { _tag: "Resume" }, postcopy, ["Refuse"]]
]

describe("migration at the source", () => {
  for (const [title, state, event, next, actions] of rows) {
    it(title, () => {
      assert.deepStrictEqual(MigrationState.transition(state, event), { state: next, actions })
    })
  }
  it("once latched it stays so, and nothing restarts the guest, whatever happens", () => {
    const events: ReadonlyArray<MigrationState.MigrationEvent> = [
      { _tag: "Connected" },
      { _tag: "ConnectFailed" },
      { _tag: "Iterated", result: 1 },
      { _tag: "Iterated", result: -1 },
      { _tag: "Drained" },
      { _tag: "CompletionFailed" },
      { _tag: "Stepped", result: 0 },
      { _tag: "Stepped", result: 1 },
      { _tag: "Stepped", result: -1 },
      { _tag: "Cancel" },
      { _tag: "Resume" }
    ]
    const walk = (state: State, depth: number): void => {
      if (depth === 0) return
      for (const event of events) {
        const step = MigrationState.transition(state, event)
        if (MigrationState.isLatched(state)) {
          assert.isTrue(MigrationState.isLatched(step.state))
          assert.notInclude(step.actions, "RestartGuest")
        }
        walk(step.state, depth - 1)
      }
    }
    walk(MigrationState.initial, 5)
  })
})
