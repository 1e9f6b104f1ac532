/** A rehearsal that silently does nothing costs every guest milliseconds: it must reach its end, on either stage. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Binding from "../../src/native/Binding.ts"
import { rehearsal } from "../../src/Rehearsal.ts"
import * as Stage from "../../src/RehearsalStage.ts"

describe("a rehearsal", () => {
  it.live("moves every page over the kernel, with calls of the addon that install runs and zeros", () =>
    Effect.gen(function*() {
      const stage = yield* Stage.kernel(Binding.require())
      const calls = { copyRun: 0, fetched: 0, zeropage: 0, unregister: 0 }
      const { uffd } = stage
      yield* rehearsal({
        ...stage,
        uffd: {
          ...uffd,
          copyRun: (...run) => {
            calls.copyRun++
            return uffd.copyRun(...run)
          },
          fetch: (...given) => {
            const logged = uffd.fetch!(...given)
            if (logged > 0) calls.fetched += logged
            return logged
          },
          zeropage: (address, length) => {
            calls.zeropage++
            return uffd.zeropage(address, length)
          },
          unregister: (address, length) => {
            calls.unregister++
            uffd.unregister(address, length)
          }
        }
      })
      assert.deepStrictEqual(calls, {
        copyRun: Stage.PAGES / 4,
        fetched: Stage.PAGES / 2,
        zeropage: Stage.PAGES / 4,
        unregister: 1
      })
    }).pipe(Effect.scoped))

  it.live("moves every page over doubles", () =>
    Effect.gen(function*() {
      const stage = yield* Stage.doubles
      let touched = 0
      yield* rehearsal({
        ...stage,
        touch: (page) => {
          touched++
          return stage.touch(page)
        }
      })
      assert.strictEqual(touched, Stage.PAGES)
    }).pipe(Effect.scoped))
})
