import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Vcpu from "../../src/guests/Vcpu.ts"

const fixture = (name: string) => new URL(`./fixtures/${name}`, import.meta.url)
const lifecycle = fixture("lifecycle.ts")

describe("a guest that fails", () => {
  const failing = (phase: string) => new URL(`?throw=${phase}`, lifecycle)

  it.live.each(["load", "blocks"])("at %s cannot be loaded", (phase) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Vcpu.load(failing(phase), {}))
      assert.strictEqual(error.phase, phase)
      assert.match(error.message, new RegExp(`thrown in ${phase}`))
    }))

  it.live("in start is lost", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(failing("start"), {})
      const error = yield* Effect.flip(vcpu.start)
      assert.strictEqual(error.phase, "start")
      assert.match(error.trace ?? "", /lifecycle\.ts/)
      assert.strictEqual((yield* Effect.flip(vcpu.crashed)).message, error.message)
      assert.strictEqual((yield* Effect.flip(vcpu.call({ op: "echo" }))).phase, "start")
    }))

  it.live("in step is lost, and nothing waits for it any longer", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(failing("step"), {})
      yield* vcpu.start
      const error = yield* Effect.flip(vcpu.crashed)
      assert.strictEqual(error.phase, "step")
      assert.strictEqual((yield* Effect.flip(vcpu.pause)).phase, "step")
      assert.strictEqual((yield* Effect.flip(vcpu.firstStepNanos)).phase, "step")
    }))

  it.live("in save runs on", () =>
    Effect.gen(function*() {
      for (const [query, message] of [["throw=save", /thrown in save/], ["save=text", /Uint8Array/]] as const) {
        const vcpu = yield* Vcpu.load(new URL(`?${query}`, lifecycle), {})
        yield* vcpu.start
        yield* vcpu.pause
        const error = yield* Effect.flip(vcpu.capture)
        assert.strictEqual(error.phase, "save")
        assert.match(error.message, message)
        yield* vcpu.run
        assert.strictEqual(yield* vcpu.call({ op: "echo", value: 1 }), 1)
      }
    }))

  it.live("in restore is lost", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(failing("restore"), {})
      assert.strictEqual((yield* Effect.flip(vcpu.restore(new Uint8Array(0)))).phase, "restore")
      assert.strictEqual((yield* Effect.flip(vcpu.crashed)).phase, "restore")
    }))

  it.live("without restore being called when no device state came", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load(failing("restore"), {})
      yield* vcpu.restore(undefined)
      yield* vcpu.firstStepNanos
      assert.deepStrictEqual(Object.keys((yield* vcpu.call({ op: "state" })) as object), ["slices"])
    }))

  it.live.each([["reject", /nobody caught this/], ["later", /thrown later/], ["exit", /exit code 3/]] as const)(
    "outside of its functions (%s) is lost, never silently",
    ([op, message]) =>
      Effect.gen(function*() {
        const vcpu = yield* Vcpu.load(lifecycle, {})
        yield* vcpu.start
        yield* Effect.ignore(vcpu.call({ op }))
        const error = yield* Effect.flip(vcpu.crashed)
        assert.strictEqual(error.phase, "thread")
        assert.match(error.message, message)
        assert.strictEqual(yield* Effect.flip(vcpu.pause), error)
      })
  )

  it.live("to be a guest is refused with the reason", () =>
    Effect.gen(function*() {
      const refusal = (module: URL | string) => Effect.flip(Vcpu.load(module, {}))
      const missing = yield* refusal("no/such/guest.ts")
      assert.strictEqual(missing.phase, "load")
      assert.match(missing.message, /no\/such\/guest\.ts: there is no such file/)
      assert.match((yield* refusal(fixture("notAGuest.ts"))).message, /made by Guest\.memory or Guest\.wasm/)
      assert.match((yield* refusal("")).message, /empty/)
      const blocks = yield* refusal(fixture("badBlocks.ts"))
      assert.strictEqual(blocks.phase, "blocks")
      assert.match(blocks.message, /4097/)
    }))
})
