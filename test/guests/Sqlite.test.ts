import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Vcpu from "../../src/guests/Vcpu.ts"
import * as Blocks from "./Blocks.ts"

interface Stats {
  readonly ramBytes: number
  readonly databaseBytes: number
  readonly items: number
  readonly ticks: number
}

const stats = (vcpu: Vcpu.Vcpu) => Effect.map(vcpu.call({ op: "stats" }), (answer) => answer as Stats)

/** Pauses `source` and moves it by hand. */
const move = Effect.fnUntraced(function*(source: Vcpu.Vcpu, destination: Vcpu.Vcpu) {
  yield* source.pause
  const state = yield* source.capture
  for (const block of source.blocks()) yield* destination.grow(block.idstr, block.length)
  Blocks.copy(source.blocks(), destination.blocks())
  yield* destination.restore(state)
})

describe("the sqlite guest", () => {
  it.live("has at least 64 MiB of its database in the RAM block, of which every byte moves", () =>
    Effect.gen(function*() {
      const source = yield* Vcpu.load("sqlite", {})
      const destination = yield* Vcpu.load("sqlite", {})
      yield* source.start
      const before = yield* stats(source)
      assert.isAtLeast(before.databaseBytes, 64 * 2 ** 20)
      assert.strictEqual(before.ramBytes, 128 * 2 ** 20)
      // What the database says its items hold is found in the block.
      const [block] = source.blocks()
      const sample = (yield* source.call({
        sql: "SELECT hex(substr(body, 1, 16)) FROM items WHERE id % 3000 = 1"
      })) as { rows: ReadonlyArray<[string]> }
      yield* source.pause
      const ram = Buffer.from(Blocks.read(block!, 0, block!.length).buffer)
      yield* source.run
      assert.isAtLeast(sample.rows.length, 5)
      for (const [hex] of sample.rows) assert.isAtLeast(ram.indexOf(Buffer.from(hex, "hex")), 0)
      const { hash } = (yield* source.call({ op: "hash" })) as { hash: string }
      const first = yield* source.call({ op: "get", key: "item-1" })
      yield* move(source, destination)
      assert.deepStrictEqual(yield* destination.call({ op: "get", key: "item-1" }), first)
      assert.deepStrictEqual(yield* destination.call({ op: "integrity" }), { ok: true, result: ["ok"] })
      assert.deepInclude(yield* destination.call({ op: "hash" }), { hash, rows: before.items })
      const after = yield* stats(destination)
      assert.isAtLeast(after.ticks, before.ticks)
      assert.strictEqual(after.ramBytes, before.ramBytes)
    }))

  it.live("grows the destination's heap to exactly what the source's has become, and works on", () =>
    Effect.gen(function*() {
      const source = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      const destination = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      yield* source.start
      yield* source.call({ sql: "CREATE TABLE more AS SELECT randomblob(4000) FROM items" })
      const hash = yield* source.call({ op: "hash" })
      const { ramBytes } = yield* stats(source)
      assert.isAbove(ramBytes, 24 * 2 ** 20)
      yield* move(source, destination)
      assert.strictEqual((yield* stats(destination)).ramBytes, ramBytes)
      // Growing by itself shows that the glue knows the memory it has.
      yield* destination.call({ sql: "CREATE TABLE evenMore AS SELECT randomblob(8000) FROM items" })
      assert.isAbove((yield* stats(destination)).ramBytes, ramBytes)
      assert.deepStrictEqual(yield* destination.call({ op: "integrity" }), { ok: true, result: ["ok"] })
      assert.deepStrictEqual(yield* destination.call({ op: "hash" }), hash)
    }))

  it.live("moves again and again", () =>
    Effect.gen(function*() {
      let vcpu = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      yield* vcpu.start
      const hash = yield* vcpu.call({ op: "hash" })
      for (let n = 1; n <= 3; n++) {
        yield* vcpu.call({ sql: `CREATE TABLE stop${n} AS SELECT ${n} AS n` })
        const next = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
        yield* move(vcpu, next)
        vcpu = next
      }
      assert.deepStrictEqual(yield* vcpu.call({ op: "hash" }), hash)
      assert.deepStrictEqual(yield* vcpu.call({ sql: "SELECT * FROM stop1, stop2, stop3" }), {
        columns: ["n", "n", "n"],
        rows: [[1, 2, 3]]
      })
    }))

  it.live("answers queries with parameters, several statements and errors", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      yield* vcpu.start
      assert.deepStrictEqual(
        yield* vcpu.call({ sql: "SELECT ? AS a, ? AS b, NULL AS c, x'00ff' AS d", params: [1.5, "é"] }),
        {
          columns: ["a", "b", "c", "d"],
          rows: [[1.5, "é", null, { base64: "AP8=" }]]
        }
      )
      assert.deepStrictEqual(
        yield* vcpu.call({ sql: "CREATE TABLE t (a); INSERT INTO t VALUES (2), (1); SELECT a FROM t ORDER BY a" }),
        { columns: ["a"], rows: [[1], [2]] }
      )
      assert.deepStrictEqual(yield* vcpu.call({ op: "get", key: "nothing" }), { found: false })
      assert.match((yield* Effect.flip(vcpu.call({ sql: "SELECT nonsense" }))).message, /no such column: nonsense/)
      assert.match((yield* Effect.flip(vcpu.call({ op: "nonsense" }))).message, /sqlite knows/)
      assert.deepStrictEqual(yield* vcpu.call({ op: "integrity" }), { ok: true, result: ["ok"] })
    }))

  it.live("does not move with a database that is a file of the JavaScript heap", () =>
    Effect.gen(function*() {
      const vcpu = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      yield* vcpu.start
      yield* vcpu.call({ sql: "ATTACH 'file.db' AS other; CREATE TABLE other.t (a)" })
      yield* vcpu.pause
      const error = yield* Effect.flip(vcpu.capture)
      assert.strictEqual(error.phase, "save")
      assert.match(error.message, /other is not in memory/)
      yield* vcpu.run
      yield* vcpu.call({ sql: "DETACH other" })
      yield* vcpu.pause
      yield* vcpu.capture
    }))

  it.live("refuses sizes that its heap cannot have, and device states that are not its own", () =>
    Effect.gen(function*() {
      for (const memoryMiB of [0, 16, 2049, Number.NaN]) {
        const error = yield* Effect.flip(Vcpu.load("sqlite", { memoryMiB }))
        assert.strictEqual(error.phase, "load")
        assert.match(error.message, /24 to 2048 MiB/)
      }
      const vcpu = yield* Vcpu.load("sqlite", { memoryMiB: 24 })
      assert.strictEqual((yield* Effect.flip(vcpu.restore(new TextEncoder().encode("{}")))).phase, "restore")
    }))
})
