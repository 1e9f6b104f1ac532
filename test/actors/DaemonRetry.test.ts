/** What the kernel puts off is tried again when time has passed: nothing is lost, and the link is not read meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import type { FaultChannel } from "../../src/services/Userfaultfd.ts"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { passing, settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE }

/** A kernel that answers EAGAIN for as long as it is told to, and counts. */
const stubborn = () => {
  const state = { refusing: true, tries: 0 }
  return {
    state,
    wrap: (uffd: FaultChannel): FaultChannel => ({
      ...uffd,
      copy: (address, source, offset, length) => {
        state.tries++
        return state.refusing ? -11 : uffd.copy(address, source, offset, length)
      },
      copyRun: (address, source, offset, stride, pageSize, pages) => {
        state.tries++
        return state.refusing ? 0 : uffd.copyRun(address, source, offset, stride, pageSize, pages)
      },
      zeropage: (address, length) => {
        state.tries++
        return state.refusing ? -11 : uffd.zeropage(address, length)
      }
    })
  }
}

describe("a page that the kernel puts off", () => {
  it.effect("is tried again by the timer, not by turns of the event loop, until it is in", () =>
    Effect.gen(function*() {
      const { state, wrap } = stubborn()
      const rig = yield* DestinationRig.make({ blocks, wrap })
      yield* rig.run
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* until("the request", () => rig.requests.length > 0)
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 2), rig.fill("pc.ram", 3, 0))
      yield* until("a try", () => state.tries > 0)
      yield* settle
      const tries = state.tries
      yield* settle
      assert.strictEqual(state.tries, tries)
      for (let i = 1; i <= 20; i++) {
        yield* TestClock.adjust(1)
        yield* settle
      }
      assert.isAtLeast(state.tries, tries + 20)
      assert.isUndefined(thread.pollUnsafe())
      state.refusing = false
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(thread), pageOf("pc.ram", 1))
      yield* TestClock.adjust(1)
      yield* until("what came behind it", () => rig.memory.present() === 3)
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 2), pageOf("pc.ram", 2))
    }))

  it.effect("does not make the daemon spin on a link that has more to read", () =>
    Effect.gen(function*() {
      const { state, wrap } = stubborn()
      let reads = 0
      const rig = yield* DestinationRig.make({ blocks, wrap })
      const { link } = rig
      const read = link.read
      Object.assign(link, {
        read: (into: Uint8Array, offset: number, length: number) => {
          reads++
          return read(into, offset, Math.min(length, 5000))
        },
        attach: ((attach) => (onReady: (readable: boolean, writable: boolean) => void) =>
          attach((readable, writable) => {
            reads++
            onReady(readable, writable)
          }))(link.attach)
      })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 2), rig.page("pc.ram", 3))
      yield* until("a try", () => state.tries > 0)
      yield* settle
      const before = reads
      yield* settle
      assert.strictEqual(reads, before)
      state.refusing = false
      yield* TestClock.adjust(1)
      yield* until("the pages", () => rig.memory.present() === 3)
    }))

  it.effect("and is removed before it is in, stays out; the thread gets zeros", () =>
    Effect.gen(function*() {
      const { state, wrap } = stubborn()
      const rig = yield* DestinationRig.make({ blocks, wrap })
      yield* rig.run
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* until("the request", () => rig.requests.length > 0)
      yield* rig.feed(rig.page("pc.ram", 1), rig.page("pc.ram", 0))
      yield* until("a try", () => state.tries > 0)
      yield* rig.memory.discard("pc.ram", 1, 1)
      yield* settle
      state.refusing = false
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(thread), new Uint8Array(PAGE))
      yield* TestClock.adjust(1)
      yield* until("the page behind it", () => rig.memory.present() === 2)
      assert.strictEqual(rig.counters.get("outstanding"), 0)
    }))

  it.effect("is waited for before the end of the stream is judged: the zeros of a removal may be all that is left", () =>
    Effect.gen(function*() {
      const { state, wrap } = stubborn()
      const context = yield* Effect.context<never>()
      let discarding: Fiber.Fiber<void> | undefined
      const rig = yield* DestinationRig.make({
        blocks: { "pc.ram": 17 * PAGE },
        wrap: (uffd) => ({
          ...uffd,
          zeropage: wrap(uffd).zeropage,
          // The guest gives a page back behind the run that makes the daemon look at the events before the next record.
          copyRun: (...run) => {
            const n = uffd.copyRun(...run)
            discarding = Effect.runForkWith(context)(rig.memory.discard("pc.ram", 16, 1))
            return n
          }
        })
      })
      const daemon = yield* rig.run
      const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 16), { startImmediately: true })
      yield* until("the request", () => rig.requests.length > 0)
      const records = Array.from({ length: 16 }, (_, page) => Array.from(rig.fill("pc.ram", page, 7)))
      yield* rig.feed(Uint8Array.from([...records.flat(), ...rig.eos]))
      yield* until("a try", () => state.tries > 0)
      yield* settle
      yield* TestClock.adjust(1)
      yield* settle
      assert.isUndefined(daemon.pollUnsafe())
      state.refusing = false
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(thread), new Uint8Array(PAGE))
      yield* until("EOC", () => rig.heard.eoc > 0)
      yield* Fiber.join(discarding!)
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
    }))

  it.effect("because a removal is unread goes in once it was read: removals and pages in every order", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks: { ram: 64 * PAGE } })
      yield* rig.run
      const dropped = new Set<number>()
      const all: Array<Fiber.Fiber<void>> = []
      const feeding = yield* Effect.forkScoped(Effect.gen(function*() {
        for (let page = 0; page < 64; page++) {
          if (page % 3 === 0) {
            const victim = (page * 5) % 64
            dropped.add(victim)
            all.push(yield* Effect.forkScoped(rig.memory.discard("ram", victim, 1), { startImmediately: true }))
          }
          yield* rig.feed(rig.page("ram", page))
          if (page % 7 === 0) yield* Effect.yieldNow
        }
      }))
      // The link is not read while a page is put off: only time lets it go on.
      yield* passing(feeding)
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust(1)
        yield* settle
      }
      for (const fiber of all) yield* Fiber.join(fiber)
      for (let page = 0; page < 64; page++) {
        const expected = dropped.has(page) ? new Uint8Array(PAGE) : pageOf("ram", page)
        assert.deepStrictEqual(yield* rig.memory.read("ram", page), expected, `page ${page}`)
      }
      assert.strictEqual(rig.counters.missing(), 0)
      assert.deepStrictEqual(rig.requests.filter(([cmd]) => cmd !== 5), [])
    }))
})
