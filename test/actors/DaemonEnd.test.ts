/** How the umem daemon ends: with every page, by QUIT, by the end of its channel; in whatever order the peers bring it about. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { PAGE } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE, "vga.vram": 2 * PAGE }
const read = (rig: Effect.Success<ReturnType<typeof DestinationRig.make>>, idstr: string, page: number) =>
  Effect.forkScoped(rig.memory.read(idstr, page), { startImmediately: true })

const all = (rig: Effect.Success<ReturnType<typeof DestinationRig.make>>) => [
  ...[0, 1, 2, 3].map((page) => rig.page("pc.ram", page)),
  ...[0, 1].map((page) => rig.page("vga.vram", page))
]

describe("the daemon's end", () => {
  it.effect("is every page, EOS, EOC, QUIT both ways; the userfaultfd stays open for its owner to close", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* rig.feed(...all(rig))
      yield* until("all pages", () => rig.memory.present() === 6)
      yield* settle
      // Without flag bit 0 only EOS ends it.
      assert.deepStrictEqual([rig.tags(), rig.heard.eoc], [["Ready"], 0])
      yield* rig.feed(rig.eos)
      yield* until("QUIT", () => rig.told.length > 1)
      assert.deepStrictEqual(rig.tags(), ["Ready", "Quit"])
      yield* until("EOC", () => rig.heard.eoc === 1)
      assert.isUndefined(daemon.pollUnsafe())
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.heard.eoc, rig.tags(), rig.uffdClosed()], [1, ["Ready", "Quit"], false])
    }))

  it.effect("QUIT of the guest first: EOC is sent, EOS waited for", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 0))
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("EOC and QUIT", () => rig.heard.eoc === 1 && rig.told.length === 2)
      yield* rig.feed(rig.page("pc.ram", 1))
      yield* settle
      assert.isUndefined(daemon.pollUnsafe())
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.heard.eoc, rig.tags()], [1, ["Ready", "Quit"]])
    }))

  it.effect("a source that says nothing after QUIT is left after the time of a goodbye", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      rig.tell(Pipe.quit("guest"))
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* TestClock.adjust(4_999)
      yield* settle
      assert.isUndefined(daemon.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("B47: the end of the channel means QUIT, and nobody has to read the daemon's own (B48)", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* read(rig, "pc.ram", 0)
      yield* until("the request", () => rig.requests.length > 0)
      rig.guest.close()
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("B48: a guest that is gone right after its own QUIT is not waited for", () =>
    Effect.gen(function*() {
      for (const quits of [true, false]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.run
        yield* settle
        if (quits) rig.tell(Pipe.quit("guest"))
        rig.guest.close()
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* rig.feed(rig.eos)
        yield* settle
        assert.deepStrictEqual(daemon.pollUnsafe(), Exit.succeed({ _tag: "Finished" } as const))
      }
    }))

  it.effect("B46: EOC waits in the queue while the source does not read, and the daemon goes on reading", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, link: { capacity: 16 } })
      const daemon = yield* rig.run
      yield* until("INIT", () => rig.heard.init > 0)
      rig.sourceReading(false)
      for (const page of [3, 1, 2]) yield* read(rig, "pc.ram", page)
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("QUIT", () => rig.told.length > 1)
      yield* rig.feed(rig.fill("pc.ram", 1, 7), rig.eos)
      yield* until("the page", () => rig.memory.present() === 1)
      yield* settle
      assert.deepStrictEqual([rig.heard.eoc, daemon.pollUnsafe()], [0, undefined])
      rig.sourceReading(true)
      yield* until("EOC", () => rig.heard.eoc === 1)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.strictEqual(rig.heard.malformed, "")
    }))

  it.effect("EOC is the last word, whatever the guest gives back or touches after it", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.run
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* rig.memory.discard("pc.ram", 3, 1)
      yield* read(rig, "pc.ram", 2)
      yield* settle
      assert.deepStrictEqual([rig.heard.malformed, rig.bytes.at(-1), rig.requests], ["", 6, []])
    }))

  it.effect("B47: bytes on the channel that are no message end it like its end", () =>
    Effect.gen(function*() {
      for (const bytes of [[0x58], [0x74, 0, 0, 0, 0, 0, 0, 0, 0], [0x52]]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.run
        yield* settle
        rig.tell(Uint8Array.from(bytes))
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* rig.feed(rig.eos)
        assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      }
    }))

  it.effect("QUIT before READY: EOC is the last thing the source hears", () =>
    Effect.gen(function*() {
      for (const gone of [false, true]) {
        const rig = yield* DestinationRig.make({ blocks })
        const daemon = yield* rig.start
        yield* settle
        if (gone) rig.guest.close()
        else rig.tell(Pipe.quit("guest"))
        yield* until("EOC", () => rig.heard.eoc === 1)
        yield* settle
        assert.strictEqual(rig.heard.malformed, "")
        assert.strictEqual(rig.bytes.at(-1), 6)
        yield* rig.feed(rig.eos)
        assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      }
    }))
})
