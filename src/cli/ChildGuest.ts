/**
 * A guest's process that this one starts for itself: the same command line, run as a child with `--json`. Its events are
 * waited for by name; what it says on stderr becomes the failure when it ends unasked. It never outlives its scope, and
 * by its leash not even a process of ours that is killed.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Failure } from "./Failure.ts"

export type Event = Readonly<Record<string, unknown>>

export interface ChildGuest {
  readonly pid: number
  /** Waits for the event of this name; fails when the process ends before it, or the event is `failed`. */
  readonly event: (name: string) => Effect.Effect<Event, Failure>
  /** Fails when the process ends before its scope does. */
  readonly ended: Effect.Effect<never, Failure>
}

/** Beside the sources as well as beside what was compiled from them. */
const entry = fileURLToPath(new URL("../../bin/postcopy.js", import.meta.url))

/** How long it may take to go by itself; a parked guest's process takes no longer than any other. */
const PATIENCE = "3 seconds"

/** Lines of stderr that are kept to explain an end. */
const KEPT_LINES = 20

export const start = Effect.fnUntraced(function*(
  name: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>
): Effect.fn.Return<ChildGuest, never, Scope.Scope> {
  const ended = yield* Deferred.make<never, Failure>()
  const exited = yield* Deferred.make<void>()
  const events = new Map<string, Deferred.Deferred<Event, Failure>>()
  const named = (event: string) => {
    const known = events.get(event) ?? Deferred.makeUnsafe<Event, Failure>()
    events.set(event, known)
    return known
  }
  const fail = (failure: Failure) => {
    Deferred.doneUnsafe(ended, Exit.fail(failure))
    for (const deferred of events.values()) Deferred.doneUnsafe(deferred, Exit.fail(failure))
  }

  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [...process.execArgv, entry, ...args, "--leash", "--json"], {
        stdio: ["pipe", "pipe", "pipe"],
        env: { ...process.env, ...environment }
      })
    ),
    (child) =>
      Effect.sync(() => child.kill("SIGTERM")).pipe(
        Effect.andThen(Deferred.await(exited).pipe(Effect.interruptible, Effect.timeoutOption(PATIENCE))),
        Effect.andThen(Effect.sync(() => child.kill("SIGKILL"))),
        Effect.andThen(Deferred.await(exited))
      )
  )
  const said: Array<string> = []
  createInterface({ input: child.stderr }).on("line", (line) => {
    said.push(line)
    if (said.length > KEPT_LINES) said.shift()
  })
  createInterface({ input: child.stdout }).on("line", (line) => {
    const event = JSON.parse(line) as Event
    if (event["event"] === "failed") return fail(failureOf(name, event["error"], 70))
    Deferred.doneUnsafe(named(String(event["event"])), Exit.succeed(event))
  })
  child.on("error", (error) => {
    fail(
      new Failure({
        tag: "ChildFailed",
        message: `the ${name} process cannot be started: ${error.message}; reinstall postcopy if its Node is gone`,
        code: 70
      })
    )
    Deferred.doneUnsafe(exited, Exit.void)
  })
  // `close`, not `exit`: what it said last is read by then.
  child.on("close", (code, signal) => {
    fail(lastWords(name, said, code, signal))
    Deferred.doneUnsafe(exited, Exit.void)
  })
  return {
    pid: child.pid ?? -1,
    event: (event) => Effect.raceFirst(Deferred.await(named(event)), Deferred.await(ended)),
    ended: Deferred.await(ended)
  }
})

const failureOf = (name: string, error: unknown, code: number): Failure => {
  const { message, tag } = Object(error) as { readonly message?: string; readonly tag?: string }
  return new Failure({ tag: tag ?? "ChildFailed", message: `${name}: ${message ?? "failed"}`, code })
}

const lastWords = (name: string, said: ReadonlyArray<string>, code: number | null, signal: string | null): Failure => {
  const error = said.findLast((line) => line.startsWith(`{"error":`))
  // What its own code means for the command that started it: a host that cannot is the same for both.
  if (error !== undefined) return failureOf(name, JSON.parse(error).error, code === 69 || code === 1 ? code : 70)
  const how = signal === null ? `exit code ${code}` : signal
  return failureOf(name, { message: [`its process ended unasked (${how})`, ...said].join("; ") }, 70)
}
