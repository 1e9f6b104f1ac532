import { assert, describe, it } from "@effect/vitest"
import * as UmemState from "../../src/protocol/umem/UmemState.ts"

const { END_MASK, EOC_QUEUED, EOC_SENT, EOS_RECEIVED, FAILED, QUIT_QUEUED, QUIT_RECEIVED, QUIT_SENT } = UmemState

type Row = readonly [
  title: string,
  state: number,
  event: UmemState.UmemEvent,
  next: number,
  actions: ReadonlyArray<UmemState.UmemAction>
]

const eos = (complete: boolean): UmemState.UmemEvent => ({ _tag: "Eos", complete })
const [allComplete, quit, channelEof, channelBroken, linkWritten, channelWritten, linkLost, installFailed] = ([
  "AllComplete",
  "Quit",
  "ChannelEof",
  "ChannelBroken",
  "LinkWritten",
  "ChannelWritten",
  "LinkLost",
  "InstallFailed"
] as const).map((_tag) => ({ _tag })) as unknown as ReadonlyArray<UmemState.UmemEvent> & { readonly length: 8 }

const AFTER_EOS = EOS_RECEIVED | EOC_QUEUED | QUIT_QUEUED
const AFTER_QUIT = QUIT_RECEIVED | EOC_QUEUED | QUIT_QUEUED
const EARLY = EOC_QUEUED | QUIT_QUEUED

const rows: ReadonlyArray<Row> = [
  ["EOS with every page here", 0, eos(true), AFTER_EOS, ["QueueEoc", "CloseLinkReader", "QueueQuit"]],
  ["a second EOS does nothing", AFTER_EOS, eos(true), AFTER_EOS, []],
  ["EOS with pages missing is an error", 0, eos(false), FAILED, ["QueueError"]],
  ["EOS with pages missing after q is none", AFTER_QUIT, eos(false), AFTER_QUIT | EOS_RECEIVED, ["CloseLinkReader"]],
  ["EOS after an early EOC queues nothing more", EARLY, eos(true), EARLY | EOS_RECEIVED, ["CloseLinkReader"]],
  ["q", 0, quit!, AFTER_QUIT, ["CloseChannelReader", "QueueEoc", "QueueQuit"]],
  ["q after EOS", AFTER_EOS, quit!, AFTER_EOS | QUIT_RECEIVED, ["CloseChannelReader"]],
  ["a second q does nothing", AFTER_QUIT, quit!, AFTER_QUIT, []],
  ["the last page, with flag bit 0", 0, allComplete!, EARLY, ["QueueEoc", "QueueQuit"]],
  ["the last page after EOS queues nothing more", AFTER_EOS, allComplete!, AFTER_EOS, []],
  ["B47: the end of pipe B is a q", 0, channelEof!, AFTER_QUIT, ["CloseChannelReader", "QueueEoc", "QueueQuit"]],
  ["the end of pipe B after q does nothing", AFTER_QUIT, channelEof!, AFTER_QUIT, []],
  [
    "B48: a dead pipe A is a q whose answer is not waited for",
    0,
    channelBroken!,
    AFTER_QUIT | QUIT_SENT,
    ["CloseChannelWriter", "CloseChannelReader", "QueueEoc"]
  ],
  ["B48: a pipe A that dies with Q in it", AFTER_QUIT, channelBroken!, AFTER_QUIT | QUIT_SENT, ["CloseChannelWriter"]],
  ["B46: EOC_SENT follows when the queued byte is written", AFTER_QUIT, linkWritten!, AFTER_QUIT | EOC_SENT, [
    "CloseLinkWriter"
  ]],
  ["an empty queue without EOC in it is no end", 0, linkWritten!, 0, []],
  ["QUIT_SENT follows when Q is written", AFTER_EOS, channelWritten!, AFTER_EOS | QUIT_SENT, ["CloseChannelWriter"]],
  ["an empty pipe A without Q in it is no end", 0, channelWritten!, 0, []],
  ["B25: a link lost before EOS is an error", 0, linkLost!, FAILED, ["QueueError"]],
  [
    "a link lost after q is not waited for",
    AFTER_QUIT,
    linkLost!,
    AFTER_QUIT | EOS_RECEIVED | EOC_SENT,
    ["CloseLinkReader", "CloseLinkWriter"]
  ],
  ["a link lost after EOS needs no EOC", AFTER_EOS, linkLost!, AFTER_EOS | EOC_SENT, ["CloseLinkWriter"]],
  ["a link lost after the last page is no error", EARLY, linkLost!, EARLY | EOS_RECEIVED | EOC_SENT, [
    "CloseLinkReader",
    "CloseLinkWriter"
  ]],
  ["B49: a page that cannot be installed is told", 0, installFailed!, FAILED, ["QueueError"]],
  ["the error is told once", FAILED, linkLost!, FAILED, []],
  ["nothing follows an error", FAILED, quit!, FAILED, []],
  ["the last of the five ends finishes", END_MASK & ~QUIT_SENT, channelWritten!, END_MASK, [
    "CloseChannelWriter",
    "Finish"
  ]],
  ["nothing follows the end", END_MASK, quit!, END_MASK, []]
]

/** Runs the machine through every order of events that its queues allow. */
const explore = (
  sources: ReadonlyArray<UmemState.UmemEvent>,
  visit: (state: number, done: ReadonlyArray<UmemState.UmemAction>) => void
) => {
  const walk = (
    state: number,
    left: ReadonlyArray<UmemState.UmemEvent>,
    queued: ReadonlyArray<UmemState.UmemEvent>,
    done: ReadonlyArray<UmemState.UmemAction>
  ): void => {
    const step = (
      event: UmemState.UmemEvent,
      left: ReadonlyArray<UmemState.UmemEvent>,
      rest: ReadonlyArray<UmemState.UmemEvent>
    ) => {
      const { actions, state: next } = UmemState.transition(state, event)
      const written = actions.flatMap((action) =>
        action === "QueueEoc" ? [linkWritten!] : action === "QueueQuit" ? [channelWritten!] : []
      )
      walk(next, left, [...rest, ...written], [...done, ...actions])
    }
    left.forEach((event, i) => step(event, left.filter((_, j) => j !== i), queued))
    queued.forEach((event, i) => step(event, left, queued.filter((_, j) => j !== i)))
    if (left.length === 0 && queued.length === 0) visit(state, done)
  }
  walk(UmemState.initial, sources, [], [])
}

describe("umem daemon (UMEM_STATE)", () => {
  for (const [title, state, event, next, actions] of rows) {
    it(title, () => {
      assert.deepStrictEqual(UmemState.transition(state, event), { state: next, actions })
    })
  }
  it("every causally possible order of the five end conditions ends at 0x1f exactly once", () => {
    let orders = 0
    for (const sources of [[eos(true), quit!], [eos(true), quit!, allComplete!], [eos(true), channelEof!, quit!]]) {
      explore(sources, (state, done) => {
        orders++
        assert.strictEqual(state & END_MASK, END_MASK)
        assert.isFalse(UmemState.isFailed(state))
        assert.strictEqual(done.filter((action) => action === "Finish").length, 1)
        assert.strictEqual(done.at(-1), "Finish")
        for (
          const action of [
            "QueueEoc",
            "QueueQuit",
            "CloseLinkReader",
            "CloseLinkWriter",
            "CloseChannelReader",
            "CloseChannelWriter"
          ] as const
        ) {
          assert.strictEqual(done.filter((other) => other === action).length, 1)
        }
      })
    }
    assert.isAbove(orders, 50)
  })
  it("with a dead guest's process, with or without EOS and a lost link, it ends exactly once", () => {
    for (
      const sources of [[channelBroken!, eos(false)], [quit!, channelBroken!, linkLost!], [
        channelEof!,
        channelBroken!,
        eos(true),
        linkLost!
      ]]
    ) {
      explore(sources, (state, done) => {
        const ended = done.filter((action) => action === "Finish" || action === "QueueError").length
        assert.strictEqual(ended, 1)
        assert.isTrue(UmemState.isFinished(state) || UmemState.isFailed(state))
      })
    }
  })
  it("a lost link never passes for an end while pages are missing", () => {
    assert.isTrue(UmemState.isFailed(UmemState.transition(UmemState.initial, linkLost!).state))
    assert.isTrue(UmemState.isFailed(UmemState.transition(QUIT_SENT, linkLost!).state))
  })
  it("requests stop with EOC, and triggers with Q", () => {
    assert.isTrue(UmemState.sendsRequests(UmemState.initial))
    assert.isTrue(UmemState.sendsTriggers(UmemState.initial))
    for (const state of [EARLY, AFTER_EOS, AFTER_QUIT, FAILED]) {
      assert.isFalse(UmemState.sendsRequests(state))
      assert.isFalse(UmemState.sendsTriggers(state))
    }
  })
})
