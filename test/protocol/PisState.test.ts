import { assert, describe, it } from "@effect/vitest"
import * as PisState from "../../src/protocol/umem/PisState.ts"

const { FAILED, QUIT_QUEUED, QUIT_RECEIVED, QUIT_SENT } = PisState

type Row = readonly [
  title: string,
  state: number,
  event: PisState.PisEvent["_tag"],
  next: number,
  actions: ReadonlyArray<PisState.PisAction>
]

const rows: ReadonlyArray<Row> = [
  ["Q lets go of the memory and is answered", 0, "Quit", QUIT_RECEIVED | QUIT_QUEUED, [
    "ReleaseMemory",
    "CloseChannelReader",
    "QueueQuit"
  ]],
  ["Q after our own quit is not answered again", QUIT_QUEUED, "Quit", QUIT_RECEIVED | QUIT_QUEUED, [
    "ReleaseMemory",
    "CloseChannelReader"
  ]],
  ["a second Q does nothing", QUIT_RECEIVED | QUIT_QUEUED, "Quit", QUIT_RECEIVED | QUIT_QUEUED, []],
  ["the quit hook queues q", 0, "QuitRequested", QUIT_QUEUED, ["QueueQuit"]],
  [
    "the quit hook after Q queues nothing more",
    QUIT_RECEIVED | QUIT_QUEUED,
    "QuitRequested",
    QUIT_RECEIVED | QUIT_QUEUED,
    []
  ],
  ["once q is written pipe B is closed", QUIT_QUEUED, "QuitWritten", QUIT_QUEUED | QUIT_SENT, ["CloseChannelWriter"]],
  ["an empty queue without q in it is no end", 0, "QuitWritten", 0, []],
  ["pipe B is closed once", QUIT_QUEUED | QUIT_SENT, "QuitWritten", QUIT_QUEUED | QUIT_SENT, []],
  ["T touches the pages and collects the answer", 0, "TriggerPageFault", 0, ["TouchPages", "CollectFaulted"]],
  ["B60: T after q touches the pages and drops the list", QUIT_QUEUED, "TriggerPageFault", QUIT_QUEUED, ["TouchPages"]],
  ["E pauses the guest", 0, "Error", FAILED, ["PauseGuest"]],
  ["a second E pauses nothing more", FAILED, "Error", FAILED, []],
  ["memory given back is announced", 0, "Unmapped", 0, ["QueueUnmapped"]],
  ["memory given back after q is not announced", QUIT_QUEUED, "Unmapped", QUIT_QUEUED, []],
  ["the end of a turn flushes t", 0, "TurnEnd", 0, ["FlushFaulted"]],
  ["the end of a turn after q flushes nothing", QUIT_QUEUED, "TurnEnd", QUIT_QUEUED, []],
  ["B47: the end of pipe A without Q is an error", 0, "ChannelEof", FAILED, ["PauseGuest"]],
  ["the end of pipe A after Q is none", QUIT_RECEIVED | QUIT_QUEUED, "ChannelEof", QUIT_RECEIVED | QUIT_QUEUED, []],
  ["E and then the end of pipe A pause the guest once", FAILED, "ChannelEof", FAILED, []]
]

describe("guest's side of the channel (PIS_STATE)", () => {
  for (const [title, state, _tag, next, actions] of rows) {
    it(title, () => {
      assert.deepStrictEqual(PisState.transition(state, { _tag }), { state: next, actions })
    })
  }
  it("whatever happens in whatever order, q is queued at most once and pipe B closed after it", () => {
    const events = ["Quit", "QuitRequested", "QuitWritten", "TriggerPageFault", "Error", "ChannelEof"] as const
    const walk = (state: number, depth: number, done: ReadonlyArray<PisState.PisAction>): void => {
      for (
        const action of [
          "QueueQuit",
          "ReleaseMemory",
          "CloseChannelWriter",
          "CloseChannelReader",
          "PauseGuest"
        ] as const
      ) {
        assert.isAtMost(done.filter((other) => other === action).length, 1)
      }
      if (done.includes("CloseChannelWriter")) {
        assert.isBelow(done.indexOf("QueueQuit"), done.indexOf("CloseChannelWriter"))
      }
      if (depth === 0) return
      for (const _tag of events) {
        const step = PisState.transition(state, { _tag })
        walk(step.state, depth - 1, [...done, ...step.actions])
      }
    }
    walk(PisState.initial, 5, [])
  })
})
