import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Vcpu from "../../src/guests/Vcpu.ts"
import * as Blocks from "./Blocks.ts"

const fixture = (name: string) => new URL(`./fixtures/${name}`, import.meta.url)
const lifecycle = fixture("lifecycle.ts")

interface State {
  readonly origin?: string
  readonly slices: number
}

/** Waits for what a guest does by itself, by asking it: every question lets it run on. */
const until = Effect.fnUntraced(function*(vcpu: Vcpu.Vcpu, done: (state: State) => boolean) {
  while (true) {
    const state = (yield* vcpu.call({ op: "state" })) as State
    if (done(state)) return state
  }
})

describe.each(Blocks.variants)("a vCPU thread, addon: %s", (addon) => {
  it.live("gives tokens of its blocks, through which its memory is read and written", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, { memoryMiB: 2, addon })
      assert.strictEqual(vcpu.kind, "memory")
      assert.deepStrictEqual(vcpu.blocks().map(({ idstr, length, maximum }) => [idstr, length, maximum]), [
        ["a", 2 ** 21, 2 ** 21],
        ["b", 8192, 8192]
      ])
      const [a] = vcpu.blocks()
      assert.strictEqual(a!.memory._tag, addon === "auto" ? "Region" : "Shared")
      yield* vcpu.start
      assert.isTrue(Blocks.read(a!, 0, 2 ** 21).every((byte) => byte === 7))
      Blocks.write(a!, 1, Uint8Array.of(99))
      assert.deepStrictEqual(yield* vcpu.call({ op: "view" }), { 0: 7, 1: 99 })
    }))

  it.live("runs slices until it is paused, none while it is, and goes on", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, { addon })
      yield* vcpu.start
      yield* until(vcpu, ({ slices }) => slices > 100)
      const before = process.hrtime.bigint()
      const { lastStepNanos } = yield* vcpu.pause
      const after = process.hrtime.bigint()
      assert.isTrue(before - lastStepNanos < after && lastStepNanos < after)
      const first = yield* vcpu.capture
      const second = yield* vcpu.capture
      assert.deepStrictEqual(second, first)
      assert.strictEqual((yield* vcpu.pause).lastStepNanos, lastStepNanos)
      const { slices } = JSON.parse(new TextDecoder().decode(first))
      assert.strictEqual(Blocks.read(vcpu.blocks()[1]!, 0, 1)[0], slices & 0xff)
      yield* vcpu.run
      yield* until(vcpu, (state) => state.slices > slices)
    }))

  it.live("moves to another thread: the restored guest goes on where the captured one stopped", () =>
    Effect.gen(function*() {
      const source = yield* Vcpu.load(lifecycle, { addon })
      const destination = yield* Vcpu.load(lifecycle, { addon })
      yield* source.start
      yield* until(source, ({ slices }) => slices > 10)
      const { lastStepNanos } = yield* source.pause
      const state = yield* source.capture
      Blocks.copy(source.blocks(), destination.blocks())
      yield* destination.restore(state)
      assert.isTrue((yield* destination.firstStepNanos) > lastStepNanos)
      const { origin, slices } = yield* until(destination, () => true)
      assert.strictEqual(origin, "restore")
      assert.isTrue(slices >= JSON.parse(new TextDecoder().decode(state)).slices)
      assert.deepStrictEqual(yield* destination.call({ op: "view" }), { 0: 7, 1: 7 })
    }))

  it.live("tells of a discard after the pages are gone, and refuses parts of pages", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, { addon })
      const heard: Array<unknown> = []
      vcpu.discards((idstr, offset, length) =>
        heard.push([idstr, offset, length, Blocks.read(vcpu.blocks()[0]!, 4096, 1)[0]])
      )
      yield* vcpu.start
      const discard = (idstr: string, offset: number, length: number) =>
        vcpu.call({ op: "discard", idstr, offset, length })
      assert.strictEqual(yield* discard("a", 4096, 8192), 0)
      assert.strictEqual(yield* discard("a", 0, 0), 7)
      assert.deepStrictEqual(heard, [["a", 4096, 8192, 0]])
      for (
        const [idstr, offset, length] of [["a", 1, 4096], ["a", 0, 4095], ["a", 2 ** 20, 4096], ["a", -4096, 4096], [
          "c",
          0,
          0
        ]] as const
      ) {
        const error = yield* Effect.flip(discard(idstr, offset, length))
        assert.strictEqual(error.phase, "call")
        assert.match(error.message, /discard:/)
      }
      assert.strictEqual(heard.length, 1)
    }))
})

describe("calls", () => {
  it.live("wait until the guest runs, and while it is paused", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, {})
      const early = yield* Effect.forkChild(vcpu.call({ op: "echo", value: "early" }))
      yield* vcpu.start
      assert.strictEqual(yield* Fiber.join(early), "early")
      yield* vcpu.pause
      const held = yield* Effect.forkChild(vcpu.call({ op: "echo", value: { held: [1, null] } }), {
        startImmediately: true
      })
      // The thread takes messages in order: it has the call when it answers this.
      yield* vcpu.capture
      assert.isUndefined(held.pollUnsafe())
      yield* vcpu.run
      assert.deepStrictEqual(yield* Fiber.join(held), { held: [1, null] })
    }))

  it.live("that are given up before they begin never happen", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, {})
      yield* vcpu.start
      yield* vcpu.pause
      const held = yield* Effect.forkChild(vcpu.call({ op: "exit" }), { startImmediately: true })
      yield* Fiber.interrupt(held)
      yield* vcpu.run
      assert.strictEqual(yield* vcpu.call({ op: "echo", value: 1 }), 1)
    }))

  it.live("under way settle before a pause is reached", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, {})
      yield* vcpu.start
      const waiting = yield* Effect.forkChild(vcpu.call({ op: "wait" }), { startImmediately: true })
      yield* vcpu.call({ op: "echo" })
      const pausing = yield* Effect.forkChild(vcpu.pause, { startImmediately: true })
      assert.strictEqual((yield* Effect.flip(vcpu.capture)).message, "save: the guest is pausing, not paused")
      assert.isUndefined(pausing.pollUnsafe())
      // A slice may be what they wait for.
      Blocks.write(vcpu.blocks()[1]!, 1, Uint8Array.of(1))
      assert.strictEqual(yield* Fiber.join(waiting), "waited")
      yield* Fiber.join(pausing)
    }))

  it.live("keep a pause waiting that is then abandoned and undone by run", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, {})
      yield* vcpu.start
      const waiting = yield* Effect.forkChild(vcpu.call({ op: "wait" }), { startImmediately: true })
      const pausing = yield* Effect.forkChild(vcpu.pause, { startImmediately: true })
      yield* Fiber.interrupt(pausing)
      yield* vcpu.run
      yield* vcpu.call({ op: "release" })
      assert.strictEqual(yield* Fiber.join(waiting), "waited")
      yield* vcpu.pause
    }))

  it.live("that throw concern their caller only", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(lifecycle, {})
      yield* vcpu.start
      const error = yield* Effect.flip(vcpu.call({ op: "throw" }))
      assert.strictEqual(error._tag, "GuestError")
      assert.strictEqual(error.phase, "call")
      assert.match(error.message, /thrown in call/)
      assert.match((yield* Effect.flip(vcpu.call({ op: "bigint" }))).message, /BigInt/)
      assert.match((yield* Effect.flip(vcpu.call(1n))).message, /request is not JSON/)
      assert.isNull(yield* vcpu.call({ op: "nothing" }))
      assert.strictEqual(yield* vcpu.call({ op: "echo", value: 1 }), 1)
    }))

  it.live("are answered by a guest without slices; without a handler they fail", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(fixture("answering.ts"), {})
      yield* vcpu.start
      assert.deepStrictEqual(yield* vcpu.call(undefined), [null, {}])
      assert.isTrue((yield* vcpu.firstStepNanos) > 0n)
      const before = process.hrtime.bigint()
      assert.isTrue((yield* vcpu.pause).lastStepNanos > before)
      assert.strictEqual((yield* vcpu.capture).length, 0)
      const silent = yield* Vcpu.load(fixture("globals.ts"), {})
      assert.strictEqual(silent.kind, "wasm")
    }))
})

describe("commands out of order", () => {
  it.live("are refused and change nothing", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(new URL("?async", lifecycle), {})
      assert.match((yield* Effect.flip(vcpu.run)).message, /idle/)
      assert.match((yield* Effect.flip(vcpu.pause)).message, /idle/)
      assert.match((yield* Effect.flip(vcpu.capture)).message, /idle/)
      yield* vcpu.start
      assert.match((yield* Effect.flip(vcpu.start)).message, /running/)
      assert.match((yield* Effect.flip(vcpu.restore(undefined))).message, /running/)
      assert.match((yield* Effect.flip(vcpu.grow("a", 2 ** 21))).message, /running/)
      yield* until(vcpu, ({ slices }) => slices > 10)
      yield* vcpu.pause
      assert.match((yield* Effect.flip(vcpu.grow("a", 2 ** 21))).message, /plain memory/)
      yield* vcpu.run
    }))

  it.live("do not keep the scope of a guest open whose slice never ends", () =>
    Effect.gen(function*() {
      const vcpu = yield* Effect.scoped(
        Effect.gen(function*() {
          const vcpu = yield* Vcpu.load(new URL("?endless", lifecycle), {})
          yield* vcpu.start
          yield* Effect.forkScoped(vcpu.pause)
          return vcpu
        })
      )
      assert.strictEqual((yield* Effect.flip(vcpu.call(null))).message, "the guest was stopped")
    }))

  it.live("after the scope has closed fail", () =>
    Effect.gen(function*() {
      const vcpu = yield* Effect.scoped(Effect.tap(Vcpu.load(lifecycle, {}), (vcpu) => vcpu.start))
      assert.strictEqual((yield* Effect.flip(vcpu.pause)).message, "the guest was stopped")
    }))
})
