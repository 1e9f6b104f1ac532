/**
 * A command's end of the control socket. What the guest's process answers comes as it is, with its own errors; what is
 * wrong with reaching it becomes a {@link Failure}: nobody there is a usage error, somebody who goes away before the
 * answer has taken the guest along.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RpcClient from "effect/rpc/RpcClient"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { GuestError } from "../guests/GuestError.ts"
import type { MigrationError } from "../MigrationError.ts"
import { group, MAX_PATH_BYTES } from "./Control.ts"
import { Failure, from, usage } from "./Failure.ts"

/** What a request may fail with. */
type Told = GuestError | MigrationError | RpcClientError

type Procedures = RpcClient.RpcClient<RpcGroup.Rpcs<typeof group>, RpcClientError>

export interface ControlClient {
  /** Asks one thing. Interrupting it withdraws the request. */
  readonly ask: <A, E extends Told>(
    request: (procedures: Procedures) => Effect.Effect<A, E>
  ) => Effect.Effect<A, Exclude<E, RpcClientError> | Failure>
}

/** The process is expected to be slow at times, never to be pinged: a connection that breaks is seen at once. */
const PING_INTERVAL = "1 hour"

/** Characters of one answer. What a guest answers is its own business; that it ends is not. */
const LONGEST_ANSWER = 2 ** 28

export const connect = Effect.fnUntraced(
  function*(path: string): Effect.fn.Return<ControlClient, Failure, Scope.Scope> {
    if (path === "" || Buffer.byteLength(path) > MAX_PATH_BYTES) {
      return yield* usage(
        `the control socket's path has ${Buffer.byteLength(path)} bytes; give --control one of 1 to ${MAX_PATH_BYTES}`
      )
    }
    const protocol = yield* Layer.build(
      RpcClient.layerProtocolSocket({ pingInterval: PING_INTERVAL, retryPolicy: Schedule.recurs(0) }).pipe(
        Layer.provide(NodeSocket.layerNet({ path })),
        Layer.provide(RpcSerialization.layerNdjsonWith({ maxBufferSize: LONGEST_ANSWER })),
        Layer.orDie
      )
    )
    const procedures = yield* RpcClient.make(group, { disableTracing: true }).pipe(Effect.provideContext(protocol))
    const gone = new Failure({
      tag: "ControlLost",
      message: `the guest's process behind ${path} ended before it answered; look at what it said on its stderr`,
      code: 70
    })
    return {
      ask: <A, E extends Told>(request: (procedures: Procedures) => Effect.Effect<A, E>) =>
        request(procedures).pipe(
          // An interruption that comes as an answer is the other end's: it is shutting down.
          Effect.catchCauseIf(Cause.hasInterruptsOnly, () => Effect.fail(gone)),
          Effect.mapError((error) =>
            error._tag === "RpcClientError"
              ? unreachable(error as RpcClientError, path) ?? gone
              : error as Exclude<E, RpcClientError> | Failure
          )
        )
    }
  }
)

/** Why nobody could be reached; `undefined`: somebody was, and is gone. */
const unreachable = ({ reason }: RpcClientError, path: string): Failure | undefined => {
  if (reason._tag === "RpcClientDefect") {
    return noControl(`what answers at ${path} does not speak as a guest's process does; give --control the path of one`)
  }
  if (reason._tag !== "SocketOpenError") return undefined
  const code = (reason.cause as NodeJS.ErrnoException | undefined)?.code
  const remedy = `start the guest's process with --control ${path}, or give the path it has`
  switch (code) {
    case "ENOENT":
      return noControl(`there is no control socket ${path}; ${remedy}`)
    case "ECONNREFUSED":
      return noControl(`nobody listens at the control socket ${path}: its process is gone; ${remedy}`)
    default:
      return noControl(`cannot connect to the control socket ${path} (${code ?? "unknown error"}); ${remedy}`)
  }
}

const noControl = (message: string) => new Failure({ tag: "NoControl", message, code: 1 })

/** Connects, asks one thing, and fails with what a command ends with. */
export const askOnce = <A, E extends Told>(
  path: string,
  request: (procedures: Procedures) => Effect.Effect<A, E>
): Effect.Effect<A, Failure> =>
  connect(path).pipe(
    Effect.flatMap(({ ask }) => ask(request)),
    Effect.mapError((error) => from(error as GuestError | MigrationError | Failure)),
    Effect.scoped
  )
