/** Flag bit 0: the guest's side is asked to touch what was installed, and the end comes by pages, before EOS. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type * as PipeMessage from "../../src/protocol/umem/Pipe.ts"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { PAGE } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE, "vga.vram": 2 * PAGE }
type Rig = Effect.Success<ReturnType<typeof DestinationRig.make>>

const triggered = (rig: Rig) =>
  rig.told.filter((message): message is PipeMessage.PageList => message._tag === "TriggerPageFault").map(({ pages }) =>
    Array.from(pages)
  )

/** Every page of both blocks comes, and is to be touched. */
const everyPage = (rig: Rig) =>
  Effect.gen(function*() {
    for (const page of [0, 1, 2, 3]) yield* rig.feed(rig.page("pc.ram", page))
    for (const page of [0, 1]) yield* rig.feed(rig.page("vga.vram", page))
    yield* until("all triggers", () => triggered(rig).flat().length === 6)
  })

describe("fault requests", () => {
  it.effect("B73: name host pages over all blocks", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, flags: 1 })
      yield* rig.run
      yield* rig.feed(rig.page("vga.vram", 1))
      yield* until("the trigger", () => rig.told.length > 1)
      assert.deepStrictEqual(triggered(rig), [[5]])
    }))

  it.effect("B73: of a block that ends within a host page reach no other block, and count for their own", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({
        blocks: { "pc.ram": 5 * PAGE, "vga.vram": 4 * PAGE },
        hostPageSize: 4 * PAGE,
        flags: 1
      })
      yield* rig.run
      for (let page = 0; page < 4; page++) yield* rig.feed(rig.page("vga.vram", page))
      yield* until("the trigger", () => triggered(rig).length > 0)
      assert.deepStrictEqual(triggered(rig), [[2]])
      for (let page = 0; page < 5; page++) yield* rig.feed(rig.page("pc.ram", page))
      yield* until("all triggers", () => triggered(rig).flat().length === 3)
      assert.deepStrictEqual(triggered(rig).flat(), [2, 0, 1])
      rig.tell(Pipe.pageFaulted([0, 1]))
      yield* settle
      assert.strictEqual(rig.heard.eoc, 0)
      rig.tell(Pipe.pageUnmapped([2]))
      yield* until("EOC", () => rig.heard.eoc === 1)
    }))

  it.effect("L1: of a block that is not the first name its pages, and touching them counts for no other block", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, flags: 1 })
      yield* rig.run
      yield* everyPage(rig)
      assert.deepStrictEqual(triggered(rig).flat(), [0, 1, 2, 3, 4, 5])
      rig.tell(Pipe.pageFaulted([2, 3, 4, 5]))
      yield* settle
      assert.strictEqual(rig.heard.eoc, 0)
      rig.tell(Pipe.pageFaulted([0, 1]))
      yield* until("EOC", () => rig.heard.eoc === 1)
    }))

  it.effect("come in messages of at most 256 pages, none lost while the guest's side does not read", () =>
    Effect.gen(function*() {
      const pages = 1500
      const rig = yield* DestinationRig.make({
        blocks: { ram: pages * PAGE },
        flags: 1,
        channel: { capacity: 512 },
        link: { capacity: 8 * 1024 * 1024 }
      })
      const daemon = yield* rig.run
      rig.guestReading(false)
      for (let page = 0; page < pages; page++) yield* rig.feed(rig.fill("ram", page, page & 1))
      yield* until("all pages", () => rig.memory.present() === pages)
      rig.guestReading(true)
      yield* until("all triggers", () => triggered(rig).flat().length === pages)
      assert.isTrue(triggered(rig).every(({ length }) => length <= 256))
      assert.deepStrictEqual(triggered(rig).flat(), Array.from({ length: pages }, (_, i) => i))
      for (let at = 0; at < pages; at += 50) {
        rig.tell(Pipe.pageFaulted(Array.from({ length: 50 }, (_, i) => at + i)))
        yield* settle
      }
      yield* until("EOC", () => rig.heard.eoc === 1)
      yield* rig.feed(rig.eos)
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("wait for a guest's side that does not read, and what it says is heard all the same", () =>
    Effect.gen(function*() {
      const pages = 400
      const rig = yield* DestinationRig.make({
        blocks: { ram: pages * PAGE },
        flags: 1,
        channel: { capacity: 64 },
        link: { capacity: 8 * 1024 * 1024 }
      })
      yield* rig.run
      rig.guestReading(false)
      for (let page = 0; page < pages; page++) yield* rig.feed(rig.fill("ram", page, page & 1))
      yield* until("all pages", () => rig.memory.present() === pages)
      yield* settle
      // More than mailbox and socket hold: it can only be written as it is read.
      const notice = Pipe.pageUnmapped([0])
      for (let i = 0; i < 300; i++) {
        yield* until(`notice ${i}`, () => rig.guest.unsent() === 0)
        rig.tell(notice)
      }
      rig.guestReading(true)
      yield* until("all triggers", () => triggered(rig).flat().length === pages)
    }))

  it.effect("end by pages: EOC and QUIT once every page is touched or removed, without an EOS", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, flags: 1 })
      const daemon = yield* rig.run
      yield* rig.memory.discard("vga.vram", 0, 1)
      for (const page of [0, 1, 2, 3]) yield* rig.feed(rig.page("pc.ram", page))
      yield* rig.feed(rig.page("vga.vram", 1))
      yield* until("all triggers", () => triggered(rig).flat().length === 5)
      rig.tell(Pipe.pageFaulted([0, 1, 2, 5]))
      yield* settle
      assert.deepStrictEqual([rig.heard.eoc, rig.tags().at(-1)], [0, "TriggerPageFault"])
      rig.tell(Pipe.pageFaulted([3]))
      yield* until("EOC and QUIT", () => rig.heard.eoc === 1 && rig.tags().at(-1) === "Quit")
      rig.tell(Pipe.quit("guest"))
      yield* settle
      assert.isUndefined(daemon.pollUnsafe(), "the source has not ended its stream")
      yield* rig.feed(rig.eos)
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("B51: numbers that no page has, and pages touched twice, do not count", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, flags: 1 })
      yield* rig.run
      yield* everyPage(rig)
      rig.tell(Pipe.pageFaulted([0, 0, 1, 1, 6, 7, 2 ** 40]))
      rig.tell(Pipe.pageUnmapped([0, 99]))
      yield* settle
      assert.strictEqual(rig.heard.eoc, 0)
      rig.tell(Pipe.pageFaulted([2, 3, 4, 5]))
      yield* until("EOC", () => rig.heard.eoc === 1)
    }))

  it.effect("are not sent after QUIT of the guest, nor without the flag", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks, flags: 1 })
      yield* rig.run
      yield* settle
      rig.tell(Pipe.quit("guest"))
      yield* until("QUIT", () => rig.told.length > 1)
      yield* rig.feed(rig.page("pc.ram", 0))
      yield* settle
      assert.deepStrictEqual(rig.tags(), ["Ready", "Quit"])
      const plain = yield* DestinationRig.make({ blocks })
      yield* plain.run
      yield* plain.feed(plain.page("pc.ram", 0))
      yield* settle
      assert.deepStrictEqual(plain.tags(), ["Ready"])
    }))
})
