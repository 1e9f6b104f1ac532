/** Waiting without sleeping gives up when it does not help: in vain, or at somebody else's cost. */
import { assert, describe, it } from "vitest"
import { backingOff, lingering, make, Ready } from "../../src/services/BusyPoll.ts"

const CONTENDED = 4

describe("backing off", () => {
  const scripted = (answer: () => number) => {
    let looks = 0
    const poll = backingOff(() => {
      looks++
      return answer()
    })
    return { looks: () => looks, times: (n: number) => Array.from({ length: n }, () => poll()) }
  }

  it("never happens while something comes", () => {
    const { looks, times } = scripted(() => Ready.First)
    assert.deepStrictEqual(new Set(times(500)), new Set([Ready.First]))
    assert.strictEqual(looks(), 500)
  })

  it("leaves out more and more waits in vain, up to 64 in a row", () => {
    const { looks, times } = scripted(() => Ready.Nothing)
    times(10_000)
    // The first few are patience; then 1, 3, 7 … 64 are left out between two.
    assert.isBelow(looks(), 5 + 7 + 10_000 / 64)
    assert.isAbove(looks(), 10_000 / 65 - 1)
  })

  it("begins with the first wait that others paid for, and keeps what came in it", () => {
    const { looks, times } = scripted(() => CONTENDED | Ready.Second)
    assert.deepStrictEqual(times(2), [Ready.Second, Ready.Nothing])
    assert.strictEqual(looks(), 1)
  })

  it("is forgotten once a wait was worth it", () => {
    let answer: number = Ready.Nothing
    const { looks, times } = scripted(() => answer)
    times(1000)
    answer = Ready.First
    while (times(1)[0] !== Ready.First);
    const before = looks()
    times(100)
    assert.strictEqual(looks() - before, 100)
  })

  it("sleeps in place of a wait that is left out, and keeps what came in it", () => {
    const waits: Array<number> = []
    let came: number | undefined = Ready.Dealt | CONTENDED
    const quick = (nanos: number) => {
      waits.push(nanos)
      return came
    }
    const poll = backingOff((_writable, quick) => quick?.(50_000) ?? Ready.Nothing)
    assert.strictEqual(poll(false, quick), Ready.Dealt)
    assert.strictEqual(poll(false, quick), Ready.Dealt)
    came = undefined
    poll(false, quick)
    poll(false, quick)
    assert.strictEqual(poll(false, quick), Ready.Nothing)
    // Contended: 1 left out; then nothing came, which is no reason yet.
    assert.deepStrictEqual(waits, [50_000, -1_000_000, 50_000, 50_000, 50_000])
  })

  it("takes an error for a reason to sleep", () => {
    const { times } = scripted(() => -9)
    assert.deepStrictEqual(times(3), [Ready.Nothing, Ready.Nothing, Ready.Nothing])
  })
})

it("waits asleep alone where no busy polling is wanted", () => {
  const waits: Array<number> = []
  const poll = make(undefined as never, 0, undefined as never, null)
  assert.strictEqual(poll(false), Ready.Nothing)
  assert.strictEqual(poll(false, (nanos) => (waits.push(nanos), Ready.Dealt | CONTENDED)), Ready.Dealt)
  assert.deepStrictEqual(waits, [-1_000_000])
})

describe("lingering", () => {
  const rig = (answers: ReadonlyArray<number>) => {
    const state = { at: 0, since: 0, active: true, acted: [] as Array<number>, polls: 0 }
    const linger = lingering({
      busyPoll: () => {
        state.at += 0.1
        return answers[state.polls++] ?? Ready.Nothing
      },
      now: () => state.at,
      since: () => state.since,
      active: () => state.active,
      act: (ready) => {
        state.acted.push(ready)
        state.since = state.at
      }
    })
    return { linger, state }
  }

  it("acts on what comes until nothing does", () => {
    const { linger, state } = rig([Ready.First, Ready.Second, Ready.First | Ready.Second])
    linger()
    assert.deepStrictEqual(state.acted, [1, 2, 3])
    assert.strictEqual(state.polls, 4)
  })

  it("does not begin when nothing is near, or there is nothing to wait for", () => {
    const late = rig([Ready.First])
    late.state.at = 10
    late.linger()
    assert.strictEqual(late.state.polls, 0)
    const idle = rig([Ready.First])
    idle.state.active = false
    idle.linger()
    assert.strictEqual(idle.state.polls, 0)
  })

  it("lets the event loop have a turn after a millisecond, and goes on", async () => {
    const { linger, state } = rig(Array.from({ length: 25 }, () => Ready.First))
    linger()
    const first = state.polls
    assert.isAtMost(first, 12)
    // Meanwhile its callbacks do not begin a second one.
    linger()
    assert.strictEqual(state.polls, first)
    while (state.acted.length < 25) await new Promise((resolve) => setImmediate(resolve))
    assert.strictEqual(state.acted.length, 25)
  })
})
