/**
 * The place of a control socket in the file system: who listens there, taking it over when nobody does, and removing it
 * at the end. A socket in use is never disturbed: it is looked at without connecting wherever the addon can.
 */
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as SocketServer from "effect/socket/SocketServer"
import { lstatSync, rmSync } from "node:fs"
import { createConnection } from "node:net"
import { dirname } from "node:path"
import * as Binding from "../native/Binding.ts"
import { descriptorPath, MAX_PATH_BYTES } from "./Control.ts"
import { Failure, usage } from "./Failure.ts"

/** "live": somebody listens · "stale": nobody does any more · "absent" · or why it cannot be told. */
const probe = (path: string): Effect.Effect<string> => {
  const addon = Binding.load()
  if (addon !== undefined) return Effect.sync(() => addon.probeUnix(path))
  // Connecting uses up an accept; without the addon nobody here listens for one connection only.
  return Effect.callback<string>((resume) => {
    const answers: Record<string, string> = { ECONNREFUSED: "stale", ENOENT: "absent" }
    const socket = createConnection({ path })
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed("live"))
    })
    socket.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(answers[error.code!] ?? error.code!)))
    return Effect.sync(() => socket.destroy())
  })
}

/** Makes `path` free to bind: refuses a live one, removes a stale one. */
export const claim = Effect.fnUntraced(function*(path: string): Effect.fn.Return<void, Failure> {
  const directory = dirname(path)
  if (lstatSync(directory, { throwIfNoEntry: false }) === undefined) {
    return yield* usage(
      `the control socket ${path} cannot be made: there is no directory ${directory}; create it first`
    )
  }
  const entry = lstatSync(path, { throwIfNoEntry: false })
  if (entry === undefined) return
  if (!entry.isSocket()) return yield* usage(`${path} exists and is not a socket; give --control another path`)
  switch (yield* probe(path)) {
    case "absent":
      return
    case "stale":
      return rmSync(path, { force: true })
    case "live":
      return yield* new Failure({
        tag: "AddressInUse",
        message:
          `the control socket ${path} is in use by another process; quit that one or give --control another path`,
        code: 1
      })
    default:
      return yield* usage(`the control socket ${path} cannot be used; remove it or give --control another path`)
  }
})

/** Listens at `path`, mode 0600. Connections wait until the server is run; closing the scope removes the socket. */
export const listen = Effect.fnUntraced(
  function*(path: string): Effect.fn.Return<SocketServer.SocketServer["Service"], Failure, Scope.Scope> {
    const bytes = Buffer.byteLength(path)
    if (bytes < 1 || bytes > MAX_PATH_BYTES) {
      return yield* usage(`the control socket's path has ${bytes} bytes; give --control one of 1 to ${MAX_PATH_BYTES}`)
    }
    yield* claim(path)
    yield* removedAtExit([path, descriptorPath(path)])
    // The file gets its mode by bind(2) and must never be open to others, not even before a chmod.
    return yield* Effect.acquireUseRelease(
      Effect.sync(() => process.umask(0o177)),
      () => NodeSocketServer.make({ path }),
      (before) => Effect.sync(() => process.umask(before))
    ).pipe(
      Effect.mapError((error) => {
        const cause = error.reason.cause as NodeJS.ErrnoException
        return usage(`cannot listen at the control socket ${path}: ${cause.message}; give --control another path`)
      })
    )
  }
)

/** A process that ends at once runs no finalizer; its sockets go all the same. */
const removedAtExit = (paths: ReadonlyArray<string>): Effect.Effect<void, never, Scope.Scope> => {
  const remove = () => {
    for (const path of paths) rmSync(path, { force: true })
  }
  return Effect.acquireRelease(
    Effect.sync(() => process.on("exit", remove)),
    () => Effect.sync(() => process.off("exit", remove))
  )
}
