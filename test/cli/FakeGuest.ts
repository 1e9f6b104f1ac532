/**
 * A guest's process in the test's own: the real control server over a guest and a migration that only pretend. The test
 * decides when the migration switches over and when it ends.
 */
import { Deferred, Effect, Exit, Scope } from "effect"
import { join } from "node:path"
import { onTestFinished } from "vitest"
import * as ControlServer from "../../src/cli/ControlServer.ts"
import type { GuestHandle } from "../../src/GuestHandle.ts"
import { GuestError } from "../../src/guests/GuestError.ts"
import type { MigrateOptions } from "../../src/Migration.ts"
import { Cancelled, MigrationError, Refused } from "../../src/MigrationError.ts"
import type { Report, State } from "../../src/Report.ts"
import { directory } from "./Postcopy.ts"

export const report: Report = {
  role: "source",
  state: "completed",
  dialect: "umem",
  memoryBytes: 2 ** 20,
  pageSize: 4096,
  pages: { total: 256, onDemand: 6, background: 250, fill: 50, removed: 0 },
  bytesOnWire: 2 ** 20,
  downtimeMs: 3.5,
  totalMs: 120,
  throughputMiBps: 8.3
}

const refused = (detail: string) =>
  new MigrationError({ side: "source", guest: "source", reason: new Refused({ detail }) })

export class FakeGuest {
  state: State = "running"
  bandwidth: number | undefined = Number.NaN
  owesPages = false
  background = true
  quits = 0
  calls: Array<unknown> = []
  /** What `migrate` was given. */
  readonly asked = Deferred.makeUnsafe<MigrateOptions>()
  /** Completes the migration. */
  readonly completed = Deferred.makeUnsafe<Report, MigrationError>()
  readonly cancelled = Deferred.makeUnsafe<void>()
  readonly quit = Deferred.makeUnsafe<void>()
  readonly lost = Deferred.makeUnsafe<never, GuestError | MigrationError>()
  /** How the migration ended, as told to the process. */
  outcome: Exit.Exit<Report, MigrationError> | undefined

  readonly handle: GuestHandle = {
    status: Effect.sync(() => ({
      role: "source",
      state: this.state,
      transferred: 6,
      remaining: 250,
      total: 256,
      blockedMs: 0
    })),
    call: (request) =>
      Effect.suspend((): Effect.Effect<unknown, GuestError | MigrationError> => {
        this.calls.push(request)
        const { op } = Object(request) as { readonly op?: string }
        if (op === "throw") return Effect.fail(new GuestError({ phase: "call", message: "the guest does not like it" }))
        if (op === "wait") return Effect.never
        if (op === "circle") {
          return Effect.sync(() => {
            const o: Record<string, unknown> = {}
            o["o"] = o
            return o
          })
        }
        if (op === "nothing") return Effect.undefined
        return this.state === "postcopy"
          ? Effect.fail(refused("the guest has moved"))
          : Effect.succeed({ echo: request })
      }),
    pause: Effect.sync(() => void (this.state = "paused")),
    resume: Effect.suspend(() => {
      if (this.state !== "paused") return Effect.fail(refused("the guest is not paused"))
      this.state = "running"
      return Effect.void
    }),
    cancel: Effect.suspend(() => {
      if (this.state !== "migrating") return Effect.fail(refused(`nothing can be cancelled: ${this.state}`))
      this.state = "running"
      Deferred.doneUnsafe(this.cancelled, Exit.void)
      return Effect.asVoid(Deferred.fail(
        this.completed,
        new MigrationError({
          side: "source",
          guest: "source",
          reason: new Cancelled({ detail: "cancelled by request" })
        })
      ))
    }),
    setMaxBandwidth: (bytesPerSecond) => Effect.sync(() => void (this.bandwidth = bytesPerSecond)),
    setBackground: (on) => Effect.sync(() => void (this.background = on)),
    observe: () =>
      Effect.map(this.handle.status, (status) => ({
        id: "fake",
        at: 0,
        status,
        memoryBytes: 2 ** 20,
        pageSize: 4096,
        blocks: [{ idstr: "ram", length: 2 ** 20 }],
        pages: report.pages,
        bytesSent: 0,
        bytesReceived: 0,
        timeline: [],
        downtimeMs: null,
        inFlight: 0,
        maxBandwidth: null,
        background: this.background
      })),
    lost: this.lost,
    owesPages: Effect.sync(() => this.owesPages)
  }

  readonly migrate = (options: MigrateOptions): Effect.Effect<Report, MigrationError> =>
    Effect.suspend(() => {
      this.state = "migrating"
      Deferred.doneUnsafe(this.asked, Exit.succeed(options))
      return Effect.uninterruptible(Deferred.await(this.completed))
    })

  /** Serves a control socket until the test ends, or until the returned function is called. */
  async serve(path: string): Promise<() => Promise<void>> {
    const scope = Scope.makeUnsafe()
    await Effect.runPromise(
      Effect.gen({ self: this }, function*() {
        const { serve } = yield* ControlServer.listen(path)
        yield* serve({
          guest: this.handle,
          migrate: this.migrate,
          onQuit: Effect.sync(() => {
            this.quits++
            Deferred.doneUnsafe(this.quit, Exit.void)
          }),
          onMigrated: (exit) => Effect.sync(() => void (this.outcome = exit))
        })
      }).pipe(Scope.provide(scope))
    )
    const close = () => {
      // An uninterruptible migration would keep the scope open.
      Deferred.doneUnsafe(this.completed, Exit.succeed(report))
      return Effect.runPromise(Scope.close(scope, Exit.void))
    }
    onTestFinished(close)
    return close
  }
}

/** A fake guest behind a control socket of its own. */
export const serving = async () => {
  const path = join(directory(), "control")
  const guest = new FakeGuest()
  const close = await guest.serve(path)
  return { path, guest, close }
}

export const completed = <A, E>(deferred: Deferred.Deferred<A, E>) => Effect.runPromise(Deferred.await(deferred))
