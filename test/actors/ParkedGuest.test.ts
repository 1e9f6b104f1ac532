/** When a destination may let go of its userfaultfd: never while the guest may be running on memory with holes. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import type { Vcpu } from "../../src/guests/Vcpu.ts"
import { listen } from "../../src/Migration.ts"
import * as Savevm from "../../src/protocol/umem/Savevm.ts"
import * as DaemonMemory from "../../src/services/DaemonMemory.ts"
import { GuestThreads } from "../../src/services/GuestThreads.ts"
import * as LinkIo from "../../src/services/LinkIo.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import { Links } from "../../src/services/Links.ts"
import { Prefault } from "../../src/services/Prefault.ts"
import { type Registration, Userfaultfd } from "../../src/services/Userfaultfd.ts"
import * as UserfaultfdMemory from "../../src/services/UserfaultfdMemory.ts"
import { PAGE } from "./Contents.ts"
import { until } from "./Turns.ts"

const ram = { idstr: "ram", length: 4 * PAGE }

/** A vCPU thread of which the test decides what its restoration comes to. */
const vcpu = (restore: Effect.Effect<void>): Vcpu => ({
  kind: "memory",
  blocks: () => [{
    ...ram,
    maximum: ram.length,
    hostPageSize: PAGE,
    memory: { _tag: "Region", token: 0n, backing: "anonymous" }
  }],
  measure: Effect.never,
  start: Effect.never,
  run: Effect.never,
  pause: Effect.never,
  capture: Effect.never,
  grow: () => Effect.never,
  restore: () => restore,
  call: () => Effect.never,
  discards: () => {},
  firstStepNanos: Effect.never,
  crashed: Effect.never
})

const stream = Savevm.concat([
  Savevm.header(),
  Savevm.start({ sectionId: 1, name: "ram", instance: 0, version: 4 }),
  Savevm.ramSizes([ram]),
  Savevm.end(1),
  Savevm.ramEnd(),
  Savevm.eof()
])

describe("the userfaultfd of a guest whose daemon dies", () => {
  for (const answered of [false, true]) {
    it.effect(`stays open when the guest's restoration ${answered ? "was answered" : "has begun and is not answered"}`, () =>
      Effect.gen(function*() {
        const memory = yield* UserfaultfdMemory.make({ blocks: [{ ...ram }] })
        const crash = Deferred.makeUnsafe<void>()
        const restoring = Deferred.makeUnsafe<void>()
        const released: Array<{ readonly complete: boolean; readonly stopped: boolean }> = []
        const restore = Effect.andThen(Deferred.succeed(restoring, undefined), answered ? Effect.void : Effect.never)
        const layers = Layer.mergeAll(
          LinkMemory.layer(),
          Layer.succeed(GuestThreads, { load: () => Effect.succeed(vcpu(restore)) }),
          Layer.succeed(Prefault, { make: () => Effect.succeed(() => Effect.void) }),
          DaemonMemory.layer(memory, Deferred.await(crash))
        )
        yield* Effect.gen(function*() {
          const incoming = yield* listen({ guest: "none", from: "unix:/parked" }).pipe(
            Effect.provideService(Userfaultfd, {
              available: Effect.void,
              register: (_blocks, guestStopped) =>
                Effect.succeed<Registration>({
                  blocks: memory.blocks,
                  descriptor: undefined,
                  memfds: [],
                  release: (complete) => released.push({ complete, stopped: guestStopped() })
                })
            })
          )
          const link = yield* (yield* Links).connect("unix:/parked")
          yield* LinkIo.writeAll(link, stream)
          yield* Deferred.await(restoring)
          if (answered) yield* incoming.running
          yield* Deferred.succeed(crash, undefined)
          const error = yield* Effect.flip(incoming.report)
          assert.strictEqual(error.guest, "parked")
          yield* until("the release", () => released.length > 0)
          assert.deepStrictEqual(released[0], { complete: false, stopped: false })
        }).pipe(Effect.provide(layers), Effect.scoped)
      }))
  }
})
