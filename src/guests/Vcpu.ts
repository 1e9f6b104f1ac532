/**
 * A guest's vCPU thread as the main thread commands it. The guest's code and its memory live in the thread; here are only
 * its commands, the tokens of its blocks, and what became of it. Closing the scope of {@link load} ends the thread.
 *
 * A thread that waits in a page fault answers nothing until the page comes: every command can be interrupted, and none
 * of them is known to have happened then.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { GuestError } from "./GuestError.ts"
import { describe } from "./GuestFailure.ts"
import * as GuestUrl from "./GuestUrl.ts"
import type { LoadedBlock, Replies } from "./VcpuMessages.ts"
import { type Command, type Handlers, VcpuPort } from "./VcpuPort.ts"

export type { LoadedBlock }

export interface Vcpu {
  readonly kind: "memory" | "wasm"
  /** The RAM blocks as of the last command; a guest's own growth shows after `measure` and `capture`. */
  readonly blocks: () => ReadonlyArray<LoadedBlock>
  /** Asks for the RAM blocks as they are now, between two slices of a guest that runs on. */
  readonly measure: Effect.Effect<ReadonlyArray<LoadedBlock>, GuestError>
  /** Prepares a fresh guest and runs it. */
  readonly start: Effect.Effect<void, GuestError>
  /** Runs a paused guest on, also one whose pause was abandoned. */
  readonly run: Effect.Effect<void, GuestError>
  /**
   * Stops the guest between two slices, once its calls under way have settled; calls that come later wait until `run`.
   * Interrupting it leaves the pause asked for: undo it with `run`.
   */
  readonly pause: Effect.Effect<{ readonly lastStepNanos: bigint }, GuestError>
  /** The device state of a paused guest. `blocks()` is current, and its memory readable, afterwards. */
  readonly capture: Effect.Effect<Uint8Array, GuestError>
  /** Grows a resizable block of a guest that does not run to exactly `bytes`. */
  readonly grow: (idstr: string, bytes: number) => Effect.Effect<LoadedBlock, GuestError>
  /** Gives an arrived guest its device state (`undefined`: none came) and runs it. */
  readonly restore: (state: Uint8Array | undefined) => Effect.Effect<void, GuestError>
  /** Asks the guest; waits while it does not run. Phase `call`: the handler threw, and only this call failed. */
  readonly call: (request: unknown) => Effect.Effect<unknown, GuestError>
  /** Tells `listener` of every range the guest gives back, after it is gone. */
  readonly discards: (listener: (idstr: string, offset: number, length: number) => void) => void
  /** When the first slice, or the first call, after start or restore had ended: CLOCK_MONOTONIC, nanoseconds. */
  readonly firstStepNanos: Effect.Effect<bigint, GuestError>
  /** Fails when the guest is lost: its code threw outside a call, or its thread died. */
  readonly crashed: Effect.Effect<never, GuestError>
}

export interface LoadOptions {
  readonly memoryMiB?: number | undefined
  /** `"none"`: as where the addon is missing. Default `"auto"`. */
  readonly addon?: "auto" | "none" | undefined
}

/** Twice this is how long the end of a thread is waited for: to end by itself, then to be terminated. */
const endPatience = "500 millis"

/**
 * Loads a guest in a thread of its own: a built-in's name, a module's path, or its URL. Nothing of it runs yet.
 * Fails with phase `load` or `blocks`.
 */
export const load: (
  module: URL | string,
  options: LoadOptions
) => Effect.Effect<Vcpu, GuestError, Scope.Scope> = Effect.fnUntraced(function*(module, options) {
  const url = yield* GuestUrl.resolve(module)
  const crash = Deferred.makeUnsafe<never, GuestError>()
  const firstStep = Deferred.makeUnsafe<bigint, GuestError>()
  const loaded = Deferred.makeUnsafe<"memory" | "wasm", GuestError>()
  const exited = Deferred.makeUnsafe<void>()
  const listeners = new Set<(idstr: string, offset: number, length: number) => void>()
  let blocks: ReadonlyArray<LoadedBlock> = []

  const handlers: Handlers = {
    onLoaded: (kind, list) => {
      blocks = list
      Deferred.doneUnsafe(loaded, Exit.succeed(kind))
    },
    onDiscard: (idstr, offset, length) => {
      for (const listener of listeners) listener(idstr, offset, length)
    },
    onFirstStep: (nanos) => {
      Deferred.doneUnsafe(firstStep, Exit.succeed(nanos))
    },
    onFailure: (error) => {
      Deferred.doneUnsafe(crash, Exit.fail(error))
      Deferred.doneUnsafe(firstStep, Exit.fail(error))
      Deferred.doneUnsafe(loaded, Exit.fail(error))
    },
    onExit: () => {
      Deferred.doneUnsafe(exited, Exit.void)
    }
  }
  const port = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new VcpuPort({ module: url, memoryMiB: options.memoryMiB, addon: options.addon !== "none" }, handlers),
      catch: (error) => new GuestError({ phase: "thread", message: `cannot start a vCPU thread: ${describe(error)}` })
    }),
    (port) => end(port, exited)
  )
  const request = <A>(command: Command): Effect.Effect<A, GuestError> =>
    Effect.callback((resume) => {
      const forget = port.request(command, (result) =>
        resume("error" in result ? Effect.fail(result.error) : Effect.succeed(result.value as A)))
      return Effect.sync(forget)
    })

  const kind = yield* Deferred.await(loaded)
  return {
    kind,
    blocks: () => blocks,
    measure: Effect.map(request<Replies["measure"]>({ _tag: "measure" }), (reply) => {
      blocks = reply
      return reply
    }),
    start: request({ _tag: "start" }),
    run: request({ _tag: "run" }),
    pause: request<Replies["pause"]>({ _tag: "pause" }),
    capture: Effect.map(request<Replies["capture"]>({ _tag: "capture" }), (reply) => {
      blocks = reply.blocks
      return reply.state
    }),
    grow: (idstr, bytes) =>
      Effect.map(request<Replies["grow"]>({ _tag: "grow", idstr, bytes }), (reply) => {
        blocks = reply.blocks
        return reply.block
      }),
    restore: (state) => request({ _tag: "restore", state }),
    call: Effect.fnUntraced(function*(asked) {
      const text = yield* Effect.try({
        try: () => JSON.stringify(asked) ?? "null",
        catch: (error) => new GuestError({ phase: "call", message: `the request is not JSON: ${describe(error)}` })
      })
      return JSON.parse(yield* request<Replies["call"]>({ _tag: "call", request: text })) as unknown
    }),
    discards: (listener) => {
      listeners.add(listener)
    },
    firstStepNanos: Deferred.await(firstStep),
    crashed: Deferred.await(crash)
  }
})

/** Bounded: a thread that waits in a page fault is left behind, and the exit guard ends the process without it. */
const end = (port: VcpuPort, exited: Deferred.Deferred<void>) => {
  const patiently = Effect.timeoutOption(Effect.interruptible(Deferred.await(exited)), endPatience)
  return Effect.gen(function*() {
    port.stop()
    if ((yield* patiently)._tag === "Some") return
    port.terminate()
    if ((yield* patiently)._tag === "Some") return
    port.unref()
  })
}
