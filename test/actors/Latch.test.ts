/** One owner at a time: what a migration that was cancelled or that failed does to its link, and to the guest it was of. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Guest, migrate } from "../../src/index.ts"
import * as RamStream from "../../src/protocol/umem/RamStream.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import * as Savevm from "../../src/protocol/umem/Savevm.ts"
import { GuestThreads } from "../../src/services/GuestThreads.ts"
import { AGAIN, type Link } from "../../src/services/Link.ts"
import { Links } from "../../src/services/Links.ts"
import * as Testing from "../../src/testing.ts"
import { PAGE } from "./Contents.ts"
import { ended, settle, until } from "./Turns.ts"

const PEER = "tcp:peer:1"

/** What happened where the test cannot see it: the guest was run again, its closed link was used. */
interface Seen {
  runs: number
  readonly usedClosed: Array<string>
}

/** The source's end of the link, which notes whoever uses it after its end. */
const noting = (link: Link, { usedClosed }: Seen): Link => {
  let closed = false
  const note = (what: string) => void (closed && usedClosed.push(what))
  return {
    ...link,
    read: (...given) => {
      note("read")
      return link.read(...given)
    },
    write: (...given) => {
      note("write")
      return link.write(...given)
    },
    watch: (readable, writable) => {
      if (readable || writable) note("watch")
      link.watch(readable, writable)
    },
    close: () => {
      closed = true
      link.close()
    }
  }
}

const world = (seen: Seen) =>
  Layer.mergeAll(
    Layer.effect(
      GuestThreads,
      Effect.map(GuestThreads, ({ load }) => ({
        load: (...about: Parameters<typeof load>) =>
          Effect.map(load(...about), (vcpu) => ({
            ...vcpu,
            run: Effect.andThen(Effect.sync(() => seen.runs++), vcpu.run)
          }))
      }))
    ),
    Layer.effect(
      Links,
      Effect.map(Links, (links) => ({
        ...links,
        connect: (...to: Parameters<typeof links.connect>) =>
          Effect.map(links.connect(...to), (link) => noting(link, seen))
      }))
    )
  ).pipe(Layer.provideMerge(Testing.layer({ blocks: [{ idstr: "ram", length: 4 * PAGE }] })))

/** Reads what is there now: its bytes, and whether the stream ended behind them. */
const readAll = (link: Link) => {
  const chunk = new Uint8Array(1024 * 1024)
  const bytes: Array<number> = []
  let n = link.read(chunk, 0, chunk.length)
  for (; n > 0; n = link.read(chunk, 0, chunk.length)) bytes.push(...chunk.subarray(0, n))
  return { bytes, over: n !== AGAIN }
}

/** What a destination makes of these bytes, up to the switchover. */
const messages = (bytes: ReadonlyArray<number>): ReadonlyArray<string> => {
  const decoder = Savevm.decoder()
  decoder.push(Uint8Array.from(bytes))
  decoder.finish()
  const found: Array<string> = []
  for (let outcome = decoder.next();; outcome = decoder.next()) {
    if (outcome._tag !== "Message") return [...found, outcome._tag]
    const { message } = outcome
    found.push(message._tag === "Section" ? message.kind : message._tag === "Ram" ? message.record._tag : message._tag)
    if (message._tag === "Eof") return found
  }
}

/** A migration to a destination that only the test plays, with background pages or without. */
const leaving = Effect.fnUntraced(function*(background = false) {
  const guest = yield* Guest.run("the guest of the double")
  const listener = yield* (yield* Links).listen(PEER)
  const migration = yield* Effect.forkChild(
    Effect.flip(migrate({ guest, to: PEER, background, maxBandwidth: PAGE })),
    { startImmediately: true }
  )
  const there = yield* listener.accept
  // A migration that is left over would be waited for.
  yield* Effect.addFinalizer(() => Effect.sync(() => there.close()))
  yield* settle
  return { guest, migration, there }
})

/** The same, once the destination has read the switchover's byte; what it read. */
const switched = Effect.fnUntraced(function*(background = false) {
  const moving = yield* leaving(background)
  const bytes: Array<number> = []
  for (let turns = 0; !messages(bytes).includes("Eof"); turns++) {
    assert.isBelow(turns, 100, "the source does not switch over")
    bytes.push(...readAll(moving.there).bytes)
    yield* TestClock.adjust(5)
    yield* settle
  }
  return moving
})

/** Why what is asked for is refused; what is not refused, or not answered, is a failure of the test. */
const refusal = <A, E>(asked: Effect.Effect<A, E>) =>
  Effect.flatMap(Effect.forkChild(Effect.flip(asked), { startImmediately: true }), ended)

const opening = ["Header", "start", "MemSize", "Eos", "part", "Eos"]
const closing = ["end", "Eos", "full", "Device"]

const scenario = (title: string, body: (seen: Seen) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.effect(title, () => {
    const seen: Seen = { runs: 0, usedClosed: [] }
    return body(seen).pipe(Effect.scoped, Effect.provide(world(seen)))
  })

describe("a migration that is taken back", () => {
  for (
    const [when, sent] of [["while its blocks are announced", opening], ["with its guest paused", [
      ...opening,
      ...closing
    ]]] as const
  ) {
    scenario(
      `B36: ${when} writes nothing more, no EOS and no switchover, and the guest runs on`,
      (seen) =>
        Effect.gen(function*() {
          const { guest, migration, there } = yield* leaving()
          const bytes: Array<number> = []
          if (sent.length > opening.length) {
            bytes.push(...readAll(there).bytes)
            yield* TestClock.adjust(50)
            yield* settle
          }
          yield* guest.cancel
          const { guest: where, reason } = yield* Fiber.join(migration)
          assert.deepStrictEqual([where, reason._tag], ["source", "Cancelled"])
          const rest = readAll(there)
          assert.deepStrictEqual(messages([...bytes, ...rest.bytes]), [...sent, "End"])
          assert.isTrue(rest.over)
          assert.deepStrictEqual([(yield* guest.status).state, yield* guest.call({ read: 3 })], ["running", 3])
          assert.strictEqual(seen.runs, 1)
        })
    )
  }

  scenario("B36: after the switchover is not taken back, and nothing is written", (seen) =>
    Effect.gen(function*() {
      const { guest, migration, there } = yield* switched()
      assert.strictEqual((yield* refusal(guest.cancel)).reason._tag, "Refused")
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.deepStrictEqual(readAll(there), { bytes: [], over: false })
      assert.isUndefined(migration.pollUnsafe())
      assert.strictEqual((yield* guest.status).state, "postcopy")
      assert.strictEqual(seen.runs, 0)
      there.close()
      yield* ended(migration)
    }))
})

describe("a migration that has switched over", () => {
  scenario(
    "B72: sends its pages as soon as the destination has come to life, before any tick",
    () =>
      Effect.gen(function*() {
        const { guest, migration, there } = yield* switched(true)
        yield* guest.setMaxBandwidth(undefined)
        there.write(Request.init(), 0, 1)
        yield* settle
        // Until now the guest there might have asked for pages that would have been more welcome.
        yield* TestClock.adjust(15)
        yield* settle
        assert.deepStrictEqual(readAll(there).bytes.slice(-8), [...RamStream.eos()])
        assert.strictEqual((yield* guest.status).remaining, 0)
        assert.isUndefined(migration.pollUnsafe(), "nothing is confirmed yet")
      })
  )
})

describe("a migration that fails after the switchover", () => {
  scenario("B41: does not let its guest run again, whoever asks for it", (seen) =>
    Effect.gen(function*() {
      const { guest, migration, there } = yield* switched()
      const refused = Effect.gen(function*() {
        for (
          const ask of [guest.resume, guest.pause, guest.cancel, guest.call({ read: 0 }), migrate({ guest, to: PEER })]
        ) {
          const error = yield* refusal(ask as Effect.Effect<unknown, unknown>)
          assert.notStrictEqual((error as { readonly guest: string }).guest, "source")
        }
        assert.strictEqual(seen.runs, 0)
      })
      yield* refused
      there.close()
      assert.strictEqual((yield* ended(migration)).guest, "unknown")
      assert.strictEqual((yield* guest.status).state, "failed")
      yield* refused
      yield* TestClock.adjust("1 hour")
      yield* settle
      assert.deepStrictEqual([seen.runs, (yield* guest.status).state], [0, "failed"])
    }))

  scenario(
    "B38: is not what a confirmed one does whose destination does not read its EOS any more",
    (seen) =>
      Effect.gen(function*() {
        const { guest, migration, there } = yield* switched()
        there.write(Request.eoc(), 0, 1)
        yield* settle
        assert.isUndefined(migration.pollUnsafe(), "the last bytes are still under way")
        yield* TestClock.adjust("10 seconds")
        yield* settle
        assert.strictEqual((yield* guest.status).state, "completed")
        assert.deepStrictEqual(readAll(there), { bytes: [...RamStream.eos()], over: true })
        assert.deepStrictEqual([seen.runs, seen.usedClosed], [0, []])
      })
  )

  scenario("B40: closes the link at once, so that the destination knows", () =>
    Effect.gen(function*() {
      const { migration, there } = yield* switched()
      there.write(Uint8Array.of(7), 0, 1)
      yield* until("the end of the link", () => readAll(there).over)
      assert.strictEqual((yield* ended(migration)).reason._tag, "MalformedInput")
    }))

  scenario("B37: leaves nothing behind that uses its link", (seen) =>
    Effect.gen(function*() {
      const { guest, migration, there } = yield* switched(true)
      there.write(Uint8Array.of(7), 0, 1)
      yield* ended(migration)
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.isAbove((yield* guest.status).remaining, 0, "pages were left that a tick would send")
      assert.strictEqual((yield* Effect.flip(guest.setMaxBandwidth(undefined))).reason._tag, "Refused")
      assert.deepStrictEqual(seen.usedClosed, [])
    }))
})
