import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Vcpu from "../../src/guests/Vcpu.ts"
import * as Blocks from "./Blocks.ts"

interface Report {
  readonly ok: boolean
  readonly badOffset?: number
  readonly steps: number
  readonly generation: number
  readonly pages: number
}

const ask = (vcpu: Vcpu.Vcpu, request: unknown) => Effect.map(vcpu.call(request), (answer) => answer as Report)

/** A paused counter of 1 MiB that has rewritten a part of its pages, and its block. */
const pausedCounter = Effect.gen(function*() {
  const vcpu = yield* Vcpu.load("counter", { memoryMiB: 1 })
  yield* vcpu.start
  yield* vcpu.firstStepNanos
  yield* vcpu.pause
  return { vcpu, block: vcpu.blocks()[0]! }
})

const verifyAfter = (damage: (block: Vcpu.LoadedBlock) => void) =>
  Effect.gen(function*() {
    const { block, vcpu } = yield* pausedCounter
    damage(block)
    yield* vcpu.run
    return yield* ask(vcpu, { op: "verify" })
  }).pipe(Effect.scoped)

const page = (block: Vcpu.LoadedBlock, index: number) => Blocks.read(block, index * 4096, 4096)

describe("the counter guest", () => {
  it.live("verifies all of its memory, whose size is that of --memory", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load("counter", { memoryMiB: 3 })
      yield* vcpu.start
      const { ok, pages } = yield* ask(vcpu, { op: "verify" })
      assert.isTrue(ok)
      assert.strictEqual(pages, 768)
      const sizes = yield* Effect.map(Vcpu.load("counter", {}), (it) => it.blocks().map(({ length }) => length))
      assert.deepStrictEqual(sizes, [64 * 2 ** 20])
    }))

  it.live("notices a single flipped byte wherever it is, and says where", () =>
    Effect.gen(function*() {
      for (const offset of [0, 3, 4095, 4096 * 7, 4096 * 255 + 4095, 2 ** 19 + 1234]) {
        const flip = (block: Vcpu.LoadedBlock) =>
          Blocks.write(block, offset, Blocks.read(block, offset, 1).map((byte) => byte ^ 1))
        const { badOffset, ok } = yield* verifyAfter(flip)
        assert.isFalse(ok)
        assert.strictEqual(badOffset, offset)
      }
    }))

  it.live("notices a page of zeros, also where the page is uniform", () =>
    Effect.gen(function*() {
      for (const index of [100, 103]) {
        const { badOffset } = yield* verifyAfter((block) => Blocks.write(block, index * 4096, new Uint8Array(4096)))
        assert.strictEqual(Math.floor(badOffset! / 4096), index)
      }
    }))

  it.live("notices two exchanged pages", () =>
    Effect.gen(function*() {
      const { ok } = yield* verifyAfter((block) => {
        const [left, right] = [page(block, 20), page(block, 21)]
        Blocks.write(block, 20 * 4096, right)
        Blocks.write(block, 21 * 4096, left)
      })
      assert.isFalse(ok)
    }))

  it.live("notices a page of the generation before", () =>
    Effect.gen(function*() {
      const { block, vcpu } = yield* pausedCounter
      const stale = page(block, 200)
      yield* vcpu.run
      const reached = (report: Report) => report.generation > 1
      while (!reached(yield* ask(vcpu, { op: "status" }))) yield* Effect.yieldNow
      yield* vcpu.pause
      Blocks.write(block, 200 * 4096, stale)
      yield* vcpu.run
      assert.isFalse((yield* ask(vcpu, { op: "verify" })).ok)
    }))

  it.live("finds a wrong byte in its slices too, and never forgets it", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load("counter", { memoryMiB: 1 })
      yield* vcpu.start
      assert.isTrue((yield* ask(vcpu, { op: "status" })).ok)
      yield* vcpu.call({ op: "flip", offset: 777_777 })
      while ((yield* ask(vcpu, { op: "status" })).ok) yield* Effect.yieldNow
      const { badOffset, ok } = yield* ask(vcpu, { op: "verify" })
      assert.isFalse(ok)
      assert.strictEqual(badOffset, 777_777)
    }))

  it.live("keeps one page in eight uniform and none of them zero", () =>
    Effect.gen(function*() {
      const { block } = yield* pausedCounter
      for (let index = 0; index < 256; index++) {
        const bytes = page(block, index)
        assert.strictEqual(bytes.every((byte) => byte === bytes[0]), index % 8 === 7)
        assert.isTrue(index % 8 !== 7 || bytes[0] !== 0)
      }
    }))

  it.live("moves: counts on, with its memory whole and its memory of damage", () =>
    Effect.gen(function*() {
      for (const damaged of [false, true]) {
        const { block, vcpu } = yield* pausedCounter
        yield* vcpu.run
        if (damaged) {
          yield* vcpu.call({ op: "flip", offset: 5 })
          yield* vcpu.call({ op: "verify" })
        }
        yield* vcpu.pause
        const state = yield* vcpu.capture
        const destination = yield* Vcpu.load("counter", { memoryMiB: 1 })
        Blocks.copy([block], destination.blocks())
        yield* destination.restore(state)
        const report = yield* ask(destination, { op: "verify" })
        assert.strictEqual(report.ok, !damaged)
        assert.isTrue(report.steps > 0)
      }
    }))

  it.live("refuses a device state of another size or none at all, and requests it does not know", () =>
    Effect.gen(function*() {
      for (const text of ["", "{}", "null", "{\"generation\":1,\"cursor\":256,\"steps\":0,\"badOffset\":null}"]) {
        const vcpu = yield* Vcpu.load("counter", { memoryMiB: 1 })
        assert.strictEqual((yield* Effect.flip(vcpu.restore(new TextEncoder().encode(text)))).phase, "restore")
      }
      const { vcpu } = yield* pausedCounter
      yield* vcpu.run
      for (const request of [null, {}, { op: "flip", offset: 2 ** 20 }, { op: "read", offset: -1 }]) {
        assert.strictEqual((yield* Effect.flip(vcpu.call(request))).phase, "call")
      }
    }))
})
