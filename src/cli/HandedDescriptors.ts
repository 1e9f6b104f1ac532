/**
 * `migrate fd:N` names a descriptor of the command, and the migration belongs to the guest's process: here it travels
 * from one to the other, by SCM_RIGHTS over a socket beside the control socket. The guest's process answers each with a
 * token, which the request to migrate then refers to. A descriptor nobody refers to is closed when its giver hangs up.
 *
 * ```
 *   giver ──"fd" + SCM_RIGHTS──▶ taker      one descriptor a connection
 *         ◀──────token, 36 bytes───         the giver keeps the connection until the migration has ended
 * ```
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { rmSync } from "node:fs"
import type { Descriptor } from "userfaultfd-napi"
import { InvalidArgument, MigrationError } from "../MigrationError.ts"
import type { Addon } from "../native/Binding.ts"
import { Failure, usage } from "./Failure.ts"

export interface HandedDescriptors {
  /** Hands over what `token` stands for: once. */
  readonly take: (token: string) => Effect.Effect<Descriptor, MigrationError>
}

const greeting = new TextEncoder().encode("fd")
const TOKEN_BYTES = 36

/** A giver that says nothing for so long has gone wrong. */
const PATIENCE = "10 seconds"

/** Why a descriptor cannot carry a migration, or `undefined`: it is a stream socket open in both directions. */
export const objection = (addon: Addon, descriptor: Descriptor): string | undefined => {
  const { access, kind, listening, socketType } = addon.describe(descriptor)
  if (kind !== "socket") return `it is a ${kind}`
  if (socketType !== addon.constants.SOCK_STREAM) return "it is a socket of another type"
  if (listening) return "it is a listening socket"
  if (access !== "rw") return "it is not open for reading and writing"
  return undefined
}

const readable = (addon: Addon, descriptor: Descriptor): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const poller = new addon.Poller(descriptor)
    poller.watch(addon.constants.READABLE, () => {
      poller.close()
      resume(Effect.void)
    })
    return Effect.sync(() => poller.close())
  })

const owned = (descriptor: Descriptor): Effect.Effect<Descriptor, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.succeed(descriptor), () => Effect.sync(() => descriptor.close()))

/** Takes descriptors at `path` (mode 0600) until the scope closes. */
export const serve = Effect.fnUntraced(
  function*(addon: Addon, path: string): Effect.fn.Return<HandedDescriptors, Failure, Scope.Scope> {
    const waiting = new Map<string, Descriptor>()
    const listener = yield* Effect.acquireRelease(
      Effect.try({
        try: () => {
          const descriptor = addon.listenUnix(path, 16, 0o600)
          addon.setNonBlocking(descriptor, true)
          return descriptor
        },
        catch: (error) =>
          usage(
            `cannot listen at ${path}, beside the control socket: ${
              (error as Error).message
            }; give --control another path`
          )
      }),
      (descriptor) =>
        Effect.sync(() => {
          descriptor.close()
          rmSync(path, { force: true })
        })
    )

    const keepUntilHangUp = Effect.fnUntraced(function*(connection: Descriptor) {
      yield* owned(connection)
      addon.setNonBlocking(connection, true)
      yield* readable(addon, connection).pipe(Effect.timeoutOption(PATIENCE))
      const { descriptors } = addon.receiveDescriptors(connection, new Uint8Array(greeting.length))
      for (const descriptor of descriptors) yield* owned(descriptor)
      const [descriptor] = descriptors
      if (descriptor === undefined || descriptors.length > 1 || objection(addon, descriptor) !== undefined) return
      const token = randomUUID()
      yield* Effect.acquireRelease(
        Effect.sync(() => waiting.set(token, descriptor)),
        () => Effect.sync(() => waiting.delete(token))
      )
      addon.write(connection, new TextEncoder().encode(token), 0, TOKEN_BYTES)
      yield* readable(addon, connection)
    }, Effect.scoped)

    yield* Effect.gen(function*() {
      while (true) {
        yield* readable(addon, listener)
        for (let next = addon.accept(listener); next !== null; next = addon.accept(listener)) {
          yield* Effect.forkChild(Effect.ignoreCause(keepUntilHangUp(next)))
        }
      }
    }).pipe(Effect.forkScoped)

    return {
      take: (token) =>
        Effect.suspend(() => {
          const descriptor = waiting.get(token)
          waiting.delete(token)
          // The migration gets an owner of its own: the one here closes when the giver hangs up.
          return descriptor === undefined ? Effect.fail(unknownToken) : Effect.succeed(descriptor.dup())
        })
    }
  }
)

const unknownToken = new MigrationError({
  side: "source",
  guest: "source",
  reason: new InvalidArgument({ detail: "the descriptor that was handed over is gone; give migrate the fd: again" })
})

/** Gives this process's descriptor `fd` to whoever serves `path`; it is theirs while the scope is open. */
export const give = Effect.fnUntraced(
  function*(addon: Addon, path: string, fd: number): Effect.fn.Return<string, Failure, Scope.Scope> {
    const remedy = "give a connected stream socket that is open for reading and writing"
    const descriptor = yield* Effect.try({
      try: () => addon.Descriptor.duplicate(fd),
      catch: () => usage(`fd:${fd} cannot carry a migration (EINVAL): it is not open in this process; ${remedy}`)
    }).pipe(Effect.flatMap(owned))
    const reason = objection(addon, descriptor)
    if (reason !== undefined) return yield* usage(`fd:${fd} cannot carry a migration (EINVAL): ${reason}; ${remedy}`)
    const connection = yield* Effect.try({
      try: () => addon.connectUnix(path),
      catch: (error) =>
        usage(
          `fd:${fd} cannot be handed to the guest's process at ${path} (${
            (error as NodeJS.ErrnoException).code
          }); look whether it is still there, with its addon built`
        )
    }).pipe(Effect.flatMap(owned))
    addon.setNonBlocking(connection, true)
    const sent = addon.sendDescriptors(connection, greeting, [descriptor])
    const token = new Uint8Array(TOKEN_BYTES)
    if (sent === greeting.length) yield* readable(addon, connection).pipe(Effect.timeoutOption(PATIENCE))
    const received = addon.read(connection, token, 0, TOKEN_BYTES)
    if (received !== TOKEN_BYTES) {
      return yield* new Failure({
        tag: "LinkFailed",
        message: `the guest's process at ${path} did not take fd:${fd}; try again, or see what it says`,
        code: 1
      })
    }
    return new TextDecoder().decode(token)
  }
)
