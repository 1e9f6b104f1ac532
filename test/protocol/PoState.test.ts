import { assert, describe, it } from "@effect/vitest"
import * as PoState from "../../src/protocol/umem/PoState.ts"

type Row = readonly [
  title: string,
  state: PoState.PoState,
  event: PoState.PoEvent,
  next: PoState.PoState,
  actions: ReadonlyArray<PoState.PoAction>
]

const tick = (dirty: number, background = true): PoState.PoEvent => ({ _tag: "Tick", background, dirty })
const requests = ["Init", "OnDemand", "OnDemandCont", "Background", "BackgroundCont", "Remove"] as const

const rows: ReadonlyArray<Row> = [
  ["INIT changes nothing", "ACTIVE", { _tag: "Init" }, "ACTIVE", []],
  ["ON_DEMAND is served", "ACTIVE", { _tag: "OnDemand" }, "ACTIVE", ["ServePages"]],
  ["BACKGROUND is served alike", "ACTIVE", { _tag: "Background" }, "ACTIVE", ["ServePages"]],
  ["ON_DEMAND_CONT is served", "ACTIVE", { _tag: "OnDemandCont" }, "ACTIVE", ["ServePages"]],
  ["BACKGROUND_CONT is served", "ACTIVE", { _tag: "BackgroundCont" }, "ACTIVE", ["ServePages"]],
  ["REMOVE clears dirty bits", "ACTIVE", { _tag: "Remove" }, "ACTIVE", ["ClearDirty"]],
  ["B03: an EOC disarms the reader", "ACTIVE", { _tag: "Eoc" }, "EOC_RECEIVED", ["DisarmReader"]],
  ["B04: a bad request ends the reading", "ACTIVE", { _tag: "ReceiveError" }, "ERROR_RECEIVE", ["CloseReader"]],
  ["B01: the end of the connection ends the reading", "ACTIVE", { _tag: "ReceiveEof" }, "ERROR_RECEIVE", [
    "CloseReader"
  ]],
  ["a tick sends background pages", "ACTIVE", tick(3), "ACTIVE", ["SendBackground"]],
  ["a tick without background only looks", "ACTIVE", tick(3, false), "ACTIVE", []],
  ["a tick with nothing dirty ends the stream", "ACTIVE", tick(0), "ALL_PAGES_SENT", ["QueueEos"]],
  ["B14: a tick without background and nothing dirty ends the stream", "ACTIVE", tick(0, false), "ALL_PAGES_SENT", [
    "QueueEos"
  ]],
  ["the last page sent ends the stream", "ACTIVE", { _tag: "AllSent" }, "ALL_PAGES_SENT", ["QueueEos"]],
  ["a tick after EOC writes the EOS", "EOC_RECEIVED", tick(9), "COMPLETED", ["QueueEos", "Succeed"]],
  ["B03: what the connection does after EOC is ignored", "EOC_RECEIVED", { _tag: "ReceiveEof" }, "EOC_RECEIVED", []],
  [
    "B03: an error of the connection after EOC is ignored",
    "EOC_RECEIVED",
    { _tag: "ReceiveError" },
    "EOC_RECEIVED",
    []
  ],
  ["a tick after an error fails", "ERROR_RECEIVE", tick(9), "ERROR_RECEIVE", ["Fail"]],
  ["requests after an error are ignored", "ERROR_RECEIVE", { _tag: "OnDemand" }, "ERROR_RECEIVE", []],
  ["B02: an EOC after the last page completes", "ALL_PAGES_SENT", { _tag: "Eoc" }, "COMPLETED", [
    "CloseReader",
    "Succeed"
  ]],
  [
    "the end of the connection after the last page completes unacknowledged",
    "ALL_PAGES_SENT",
    { _tag: "ReceiveEof" },
    "COMPLETED",
    ["CloseReader", "EndUnacknowledged"]
  ],
  [
    "a bad request after the last page completes unacknowledged",
    "ALL_PAGES_SENT",
    { _tag: "ReceiveError" },
    "COMPLETED",
    ["CloseReader", "EndUnacknowledged"]
  ],
  ["a tick after the last page is impossible and changes nothing", "ALL_PAGES_SENT", tick(0), "ALL_PAGES_SENT", []],
  ["a second EOC changes nothing", "COMPLETED", { _tag: "Eoc" }, "COMPLETED", []],
  ["a tick after completion changes nothing", "COMPLETED", tick(0), "COMPLETED", []]
]

describe("source in post-copy (PO_STATE)", () => {
  for (const [title, state, event, next, actions] of rows) {
    it(title, () => {
      assert.deepStrictEqual(PoState.transition(state, event), { state: next, actions })
    })
  }
  it("ALL_PAGES_SENT: requests are parsed and ignored", () => {
    for (const _tag of requests) {
      assert.deepStrictEqual(PoState.transition("ALL_PAGES_SENT", { _tag }), { state: "ALL_PAGES_SENT", actions: [] })
    }
  })
  it("the switchover marks every page dirty and arms the reader", () => {
    assert.deepStrictEqual(PoState.begin, { state: "ACTIVE", actions: ["MarkAllDirty", "ArmReader"] })
  })
  it("whatever happens in whatever order, one EOS at most is queued and the end is told once", () => {
    const events: ReadonlyArray<PoState.PoEvent> = [
      ...requests.map((_tag) => ({ _tag })),
      { _tag: "Eoc" },
      { _tag: "ReceiveError" },
      { _tag: "ReceiveEof" },
      { _tag: "AllSent" },
      tick(1),
      tick(0)
    ]
    const walk = (state: PoState.PoState, depth: number, done: ReadonlyArray<PoState.PoAction>): void => {
      assert.isAtMost(done.filter((action) => action === "QueueEos").length, 1)
      assert.isAtMost(done.filter((action) => action === "Succeed" || action === "EndUnacknowledged").length, 1)
      assert.isFalse(done.includes("Succeed") && done.includes("Fail"))
      if (depth === 0) return
      for (const event of events) {
        const step = PoState.transition(state, event)
        walk(step.state, depth - 1, [...done, ...step.actions])
      }
    }
    walk("ACTIVE", 4, [])
  })
  it("requests are served while pages are left", () => {
    const states = ["ERROR_RECEIVE", "ACTIVE", "EOC_RECEIVED", "ALL_PAGES_SENT", "COMPLETED"] as const
    assert.deepStrictEqual(states.filter(PoState.servesRequests), ["ACTIVE"])
  })
})
