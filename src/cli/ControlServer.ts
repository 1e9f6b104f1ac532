/**
 * Answers the control socket of a process that holds a guest. A migration started here belongs to the process: whoever
 * asked for it and goes away cancels it while it can be cancelled, and otherwise leaves it running.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Scope from "effect/Scope"
import * as SocketServer from "effect/socket/SocketServer"
import type { GuestHandle } from "../GuestHandle.ts"
import { GuestError } from "../guests/GuestError.ts"
import type { MigrateOptions } from "../Migration.ts"
import { InvalidArgument, MigrationError } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import type { Report } from "../Report.ts"
import { descriptorPath, group, type Target, type Tuning } from "./Control.ts"
import * as ControlSocket from "./ControlSocket.ts"
import { Failure } from "./Failure.ts"
import * as HandedDescriptors from "./HandedDescriptors.ts"

/** Runs of the largest map that anybody can ask for: it bounds the answer. */
const MOST_CELLS = 2 ** 14

export interface ServeOptions {
  readonly guest: GuestHandle
  /** `Migration.migrate`. */
  readonly migrate: (options: MigrateOptions) => Effect.Effect<Report, MigrationError>
  /** Somebody asked the process to end. */
  readonly onQuit: Effect.Effect<void>
  /** A migration ended, whoever still waits for it. */
  readonly onMigrated: (exit: Exit.Exit<Report, MigrationError>) => Effect.Effect<void>
}

export interface Listening {
  /** Answers from here on; until then whoever connects waits. */
  readonly serve: (options: ServeOptions) => Effect.Effect<void, never, Scope.Scope>
}

/** Takes the paths. Before the guest is started, so that a path in use costs nothing. */
export const listen = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Listening, Failure, Scope.Scope> {
  const server = yield* ControlSocket.listen(path)
  const addon = Binding.load()
  // Without the addon no descriptor could be received; everything else works.
  const handed = addon === undefined ? undefined : yield* serveDescriptors(addon, descriptorPath(path))
  return { serve: (options) => serve(server, handed, options) }
})

const serveDescriptors = Effect.fnUntraced(function*(addon: Binding.Addon, path: string) {
  yield* ControlSocket.claim(path)
  return yield* HandedDescriptors.serve(addon, path)
})

const serve = Effect.fnUntraced(function*(
  server: SocketServer.SocketServer["Service"],
  handed: HandedDescriptors.HandedDescriptors | undefined,
  { guest, migrate, onMigrated, onQuit }: ServeOptions
) {
  const scope = yield* Effect.scope

  const target = (to: Target): Effect.Effect<MigrateOptions["to"], MigrationError> => {
    if (to._tag === "Uri") return Effect.succeed(to.uri)
    return handed === undefined ? Effect.fail(noDescriptors) : handed.take(to.token)
  }

  const migrateFor = Effect.fnUntraced(function*(
    { background, busyPollMicros, id, maxBandwidth, prefault, to }: {
      to: Target
      background: boolean
      maxBandwidth: number | null
    } & Tuning
  ) {
    const options = {
      guest,
      to: yield* target(to),
      background,
      maxBandwidth: maxBandwidth ?? undefined,
      prefault,
      busyPollMicros,
      id
    }
    const fiber = yield* migrate(options).pipe(
      Effect.onExit(onMigrated),
      Effect.forkIn(scope, { startImmediately: true })
    )
    return yield* Fiber.join(fiber).pipe(
      // The caller hung up. After the switchover the cancellation is refused, and the migration goes on without it.
      Effect.onInterrupt(() => Effect.ignore(guest.cancel))
    )
  })

  const handlers = group.toLayer({
    Status: () => guest.status,
    SetBandwidth: ({ bytesPerSecond }) => guest.setMaxBandwidth(bytesPerSecond ?? undefined),
    SetBackground: ({ on }) => guest.setBackground(on),
    Observe: ({ cells }) => guest.observe(Math.min(MOST_CELLS, Math.max(0, Math.floor(cells)))),
    Pause: () => guest.pause,
    Resume: () => guest.resume,
    Cancel: () => guest.cancel,
    Call: ({ request }) => guest.call(JSON.parse(request)).pipe(Effect.flatMap(toJson)),
    Quit: () => Effect.tap(Effect.map(guest.owesPages, (owesPages) => ({ owesPages })), () => onQuit),
    Migrate: migrateFor
  })

  yield* Layer.build(
    RpcServer.layer(group, { disableTracing: true, disableFatalDefects: true }).pipe(
      Layer.provide(handlers),
      Layer.provide(RpcServer.layerProtocolSocketServer),
      Layer.provide(RpcSerialization.layerNdjson),
      Layer.provide(Layer.succeed(SocketServer.SocketServer, server)),
      // A command that is killed resets its connection: nothing that this process has to report.
      Layer.provide(Layer.succeed(References.UnhandledLogLevel, undefined))
    )
  )
})

const toJson = (answer: unknown): Effect.Effect<string, GuestError> =>
  Effect.try({
    try: () => JSON.stringify(answer) ?? "null",
    catch: (error) =>
      new GuestError({
        phase: "call",
        message: `the guest's answer is no JSON value: ${Cause.pretty(Cause.fail(error))}`
      })
  })

const noDescriptors = new MigrationError({
  side: "source",
  guest: "source",
  reason: new InvalidArgument({
    detail:
      "the guest's process takes no descriptors: its addon is not built; run npm rebuild there, or use tcp: or unix:"
  })
})
