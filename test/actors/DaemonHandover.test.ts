/** The bytes that were read behind the switchover's byte belong to the daemon, and come first. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 2 * PAGE }
type Rig = Effect.Success<ReturnType<typeof DestinationRig.make>>

const complete = (rig: Rig, daemon: Fiber.Fiber<unknown>) =>
  Effect.gen(function*() {
    yield* until("EOC", () => rig.heard.eoc === 1)
    assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 0), new Uint8Array(PAGE).fill(5))
    assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 1), pageOf("pc.ram", 1))
    rig.tell(Pipe.quit("guest"))
    assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    // INIT first, EOC last, and nothing was asked for in between.
    assert.deepStrictEqual([rig.bytes, rig.heard.malformed], [[0, 6], ""])
  })

describe("the handover", () => {
  it.effect("B24: pages and EOS that were read with the switchover are looked at though no byte ever comes again", () =>
    Effect.gen(function*() {
      const script = yield* DestinationRig.make({ blocks })
      const stream = Uint8Array.from([...script.fill("pc.ram", 0, 5), ...script.page("pc.ram", 1), ...script.eos])
      const rig = yield* DestinationRig.make({ blocks, remainder: stream })
      const daemon = yield* rig.run
      yield* complete(rig, daemon)
      assert.strictEqual(rig.counters.get("bytesReceived"), stream.length)
    }))

  it.effect("B24: the stream may be cut between handover and link at any byte", () =>
    Effect.gen(function*() {
      const script = yield* DestinationRig.make({ blocks })
      const stream = Uint8Array.from([...script.fill("pc.ram", 0, 5), ...script.page("pc.ram", 1), ...script.eos])
      const cuts = Array.from({ length: stream.length + 1 }, (_, at) => at)
        .filter((at) => at < 40 || at > stream.length - 20 || at % 256 === 0)
      for (const at of cuts) {
        const rig = yield* DestinationRig.make({ blocks, remainder: stream.slice(0, at) })
        const daemon = yield* rig.run
        yield* rig.feed(stream.subarray(at))
        yield* complete(rig, daemon)
      }
    }))

  it.effect("a fault that waited for the daemon is answered out of the bytes handed over, without a request", () =>
    Effect.gen(function*() {
      const script = yield* DestinationRig.make({ blocks })
      const rig = yield* DestinationRig.make({ blocks, remainder: script.page("pc.ram", 1) })
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* settle
      yield* rig.run
      assert.deepStrictEqual(yield* Fiber.join(thread), pageOf("pc.ram", 1))
      yield* settle
      assert.deepStrictEqual(rig.requests, [])
    }))

  it.effect("a fault that is read because a removal was in the way of the first page is served", () =>
    Effect.gen(function*() {
      const script = yield* DestinationRig.make({ blocks })
      const rig = yield* DestinationRig.make({
        blocks,
        remainder: script.page("pc.ram", 1),
        // A kernel whose removal is settled as soon as its event is read, so that the second COPY succeeds at once.
        wrap: (uffd) => {
          let refused = false
          return {
            ...uffd,
            copy: (_address, _source, _offset, length) => {
              if (refused) return length
              refused = true
              return -11
            }
          }
        }
      })
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 0), { startImmediately: true })
      yield* rig.run
      yield* until("the request", () => rig.requests.length > 0)
      assert.deepStrictEqual(rig.requests, [[1, "pc.ram", [0]]])
      assert.isUndefined(thread.pollUnsafe())
    }))
})
