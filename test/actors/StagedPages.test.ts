/** Blocks behind a memfd: bytes are staged where the guest does not see them, and mapped page by page. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { passing, settle, until } from "./Turns.ts"

const small = { blocks: { ram: 4 * PAGE }, mode: "continue" as const }
/** Two target pages in a host page. */
const large = { blocks: { ram: 8 * PAGE }, mode: "continue" as const, hostPageSize: 2 * PAGE }

const zeros = (bytes: number) => new Uint8Array(bytes)

describe("a block behind a memfd", () => {
  it.effect("gets pages by mapping what was staged, and zero pages without staging", () =>
    Effect.gen(function*() {
      const staged: Array<number> = []
      const rig = yield* DestinationRig.make({
        ...small,
        wrap: (uffd) => ({
          ...uffd,
          copy: () => assert.fail("a memfd's page must not be copied"),
          staged: (idstr) => {
            const inner = uffd.staged(idstr)
            return {
              ...inner,
              write: (...args) => {
                staged.push(args[0])
                inner.write(...args)
              }
            }
          }
        })
      })
      yield* rig.run
      yield* rig.feed(rig.page("ram", 1), rig.fill("ram", 2, 0), rig.fill("ram", 3, 7))
      yield* until("three pages", () => rig.memory.present() === 3)
      assert.deepStrictEqual(staged, [PAGE, 3 * PAGE])
      assert.deepStrictEqual(yield* rig.memory.read("ram", 1), pageOf("ram", 1))
      assert.deepStrictEqual(yield* rig.memory.read("ram", 2), zeros(PAGE))
      assert.deepStrictEqual(yield* rig.memory.read("ram", 3), new Uint8Array(PAGE).fill(7))
    }))

  it.effect("B53: that comes twice keeps what the guest has written to it meanwhile", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make(small)
      yield* rig.run
      yield* rig.feed(rig.page("ram", 1))
      yield* until("the page", () => rig.memory.present() === 1)
      yield* rig.memory.write("ram", 1, 0x77)
      yield* rig.feed(rig.page("ram", 1), rig.page("ram", 2))
      yield* until("the page behind it", () => rig.memory.present() === 2)
      assert.strictEqual((yield* rig.memory.read("ram", 1))[0], 0x77)
    }))

  it.effect("shows nothing of a page that is half there; a touch of it asks for the rest only", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make(large)
      yield* rig.run
      yield* rig.feed(rig.page("ram", 3))
      yield* settle
      const thread = yield* Effect.forkScoped(rig.memory.read("ram", 1), { startImmediately: true })
      yield* settle
      assert.isUndefined(thread.pollUnsafe())
      assert.deepStrictEqual(rig.requests, [[1, "ram", [2]]])
      yield* rig.feed(rig.page("ram", 2))
      const bytes = yield* Fiber.join(thread)
      assert.deepStrictEqual(bytes, Uint8Array.from([...pageOf("ram", 2), ...pageOf("ram", 3)]))
    }))

  it.effect("given back while half there: the thread that waits for it gets zeros, not the half", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make(large)
      yield* rig.run
      yield* rig.feed(rig.page("ram", 3))
      const thread = yield* Effect.forkScoped(rig.memory.read("ram", 1), { startImmediately: true })
      yield* settle
      const giving = yield* Effect.forkScoped(rig.memory.discard("ram", 1, 1), { startImmediately: true })
      yield* settle
      for (let i = 0; i < 5; i++) yield* TestClock.adjust(1)
      yield* Fiber.join(giving)
      assert.deepStrictEqual(yield* Fiber.join(thread), zeros(2 * PAGE))
      yield* rig.feed(rig.page("ram", 2))
      yield* settle
      assert.deepStrictEqual(yield* rig.memory.read("ram", 1), zeros(2 * PAGE))
    }))

  it.effect("B52: given back: what is staged of a page that nobody has seen is cleared at once, what was mapped is the guest's", () =>
    Effect.gen(function*() {
      const cleared: Array<readonly [offset: number, length: number]> = []
      const rig = yield* DestinationRig.make({
        ...large,
        wrap: (uffd) => ({
          ...uffd,
          staged: (idstr) => ({
            ...uffd.staged(idstr),
            clear: (...range) => void cleared.push(range)
          })
        })
      })
      yield* rig.run
      yield* rig.feed(rig.page("ram", 3), rig.page("ram", 4), rig.page("ram", 5))
      yield* until("the whole page", () => rig.memory.present() === 1)
      // Between the reading of the event and the end of the madvise a thread that is answered would see the half.
      yield* rig.memory.discard("ram", 1, 2)
      assert.deepStrictEqual(cleared, [[2 * PAGE, 2 * PAGE]])
    }))

  it.effect("given back, touched and written to: a late second fault leaves what was written", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make(small)
      yield* rig.run
      yield* rig.feed(rig.page("ram", 0))
      yield* settle
      yield* Effect.forkScoped(rig.memory.discard("ram", 1, 1), { startImmediately: true })
      yield* settle
      const [first, second] = [
        yield* Effect.forkScoped(rig.memory.write("ram", 1, 9), { startImmediately: true }),
        yield* Effect.forkScoped(rig.memory.read("ram", 1), { startImmediately: true })
      ]
      yield* passing(first)
      yield* passing(second)
      rig.memory.unmap("ram", 1)
      assert.strictEqual((yield* rig.memory.read("ram", 1))[0], 9)
    }))

  it.effect("keeps its content when the kernel takes a mapping away: it is mapped again, and not asked for", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make(small)
      yield* rig.run
      yield* rig.feed(rig.page("ram", 2))
      yield* settle
      yield* rig.memory.write("ram", 2, 77)
      rig.memory.unmap("ram", 2)
      assert.strictEqual((yield* rig.memory.read("ram", 2))[0], 77)
      assert.deepStrictEqual(rig.requests, [])
    }))

  it.effect("that loses a staged page without a word fails; the guest's thread stays where it is", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ ...small, wrap: (uffd) => ({ ...uffd, continueRange: () => -14 }) })
      const daemon = yield* rig.run
      const thread = yield* Effect.forkScoped(rig.memory.read("ram", 2), { startImmediately: true })
      yield* rig.feed(rig.page("ram", 2))
      const ending = yield* Fiber.join(daemon)
      assert.match((ending as { readonly detail: string }).detail, /EFAULT/)
      assert.isUndefined(thread.pollUnsafe())
    }))
})

describe("a block of which nothing is missing", () => {
  for (const mode of ["copy", "continue"] as const) {
    it.effect(`B63: given back as a whole it is complete, and not registered any more (${mode})`, () =>
      Effect.gen(function*() {
        const rig = yield* DestinationRig.make({ blocks: { ram: 4 * PAGE, rom: 2 * PAGE }, mode })
        const daemon = yield* rig.run
        yield* settle
        yield* rig.memory.discard("rom", 0, 2)
        yield* settle
        assert.deepStrictEqual(rig.memory.unregistered(), ["rom"])
        assert.deepStrictEqual(rig.requests, [[5, "rom", [0, 1]]])
        assert.deepStrictEqual(yield* rig.memory.read("rom", 1), zeros(PAGE))
        for (let page = 0; page < 4; page++) yield* rig.feed(rig.page("ram", page))
        yield* rig.feed(rig.eos)
        yield* until("EOC", () => rig.heard.eoc === 1)
        assert.deepStrictEqual(rig.memory.unregistered(), ["rom", "ram"])
        assert.isUndefined(daemon.pollUnsafe())
      }))
  }
})
