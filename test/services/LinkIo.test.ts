/** Waiting reads and writes: what a link that is broken, full or at its end comes to. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { AGAIN, type Link } from "../../src/services/Link.ts"
import * as LinkIo from "../../src/services/LinkIo.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import { ended, settle } from "../actors/Turns.ts"

const EPIPE = -32

/** A link whose calls come to what is given, and whose readiness comes at once and always. */
const link = (calls: Partial<Link>): Link => {
  let onReady: (readable: boolean, writable: boolean) => void = () => {}
  return {
    read: () => AGAIN,
    write: () => AGAIN,
    attach: (callback) => {
      onReady = callback
    },
    watch: (readable, writable) => {
      if (readable || writable) setImmediate(() => onReady(readable, writable))
    },
    unsent: () => 0,
    unsentIsUnread: true,
    close: () => {},
    release: () => {},
    descriptor: undefined,
    peer: "the peer",
    ...calls
  }
}

const failure = <A, E>(waiting: Effect.Effect<A, E>) =>
  Effect.flatMap(Effect.forkChild(Effect.flip(waiting), { startImmediately: true }), ended)

describe("a waiting write", () => {
  it.effect("B21: fails when the peer is gone, with bytes left and the link writable for ever", () =>
    Effect.gen(function*() {
      let room = 3
      const broken = link({ write: (_from, _offset, length) => room > 0 ? Math.min(room--, length) : EPIPE })
      assert.strictEqual((yield* failure(LinkIo.writeAll(broken, new Uint8Array(100)))).code, "EPIPE")
    }))

  it.effect("B22: fails when the link takes nothing and says neither why nor when", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* failure(LinkIo.writeAll(link({ write: () => 0 }), new Uint8Array(1)))).code, "EIO")
    }))

  it.effect("B21: of the last bytes fails when the link does, and after its time when the peer takes none", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* failure(LinkIo.drained(link({ unsent: () => EPIPE }), 50))).code, "EPIPE")
      assert.strictEqual((yield* failure(LinkIo.drained(link({ unsent: () => 7 }), 50))).code, "TIMEOUT")
    }))

  it.effect("goes on when the peer reads, with every byte in its order", () =>
    Effect.gen(function*() {
      const [here, there] = yield* LinkMemory.pair({ capacity: 10 })
      const bytes = Uint8Array.from({ length: 95 }, (_, i) => i)
      const writing = yield* Effect.forkChild(LinkIo.writeAll(here, bytes), { startImmediately: true })
      const got: Array<number> = []
      const into = new Uint8Array(7)
      while (got.length < bytes.length) got.push(...into.subarray(0, yield* LinkIo.readSome(there, into)))
      yield* ended(writing)
      assert.deepStrictEqual(got, [...bytes])
    }))
})

describe("a waiting read", () => {
  it.effect("B01: keeps the end of the stream, an error and no data apart", () =>
    Effect.gen(function*() {
      const into = new Uint8Array(8)
      const atEnd = LinkIo.readSome(link({ read: () => 0 }), into)
      assert.strictEqual(yield* ended(yield* Effect.forkChild(atEnd, { startImmediately: true })), 0)
      assert.strictEqual((yield* failure(LinkIo.readSome(link({ read: () => -104 }), into))).code, "ECONNRESET")
      const [here] = yield* LinkMemory.pair()
      const reading = yield* Effect.forkChild(LinkIo.readSome(here, into), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      yield* settle
      assert.isUndefined(reading.pollUnsafe())
    }))
})
