/**
 * What can be asked of a guest's process over its control socket: the procedures and their types, for both ends. They
 * are calls of `effect/rpc`, one JSON message a line, on a unix socket that only its owner may open.
 *
 * ```
 *   a command ──connect──▶ PATH      procedures below; hanging up cancels what it asked for
 *             ──connect──▶ PATH.fd   one descriptor by SCM_RIGHTS, answered by the token that `Migrate` refers to
 * ```
 */
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import { GuestError } from "../guests/GuestError.ts"
import { MigrationError } from "../MigrationError.ts"
import { Observation } from "../Observation.ts"
import { Report, Status } from "../Report.ts"

const error = Schema.Union([MigrationError, GuestError])

/** Bytes per second; null is unlimited. */
const Bandwidth = Schema.NullOr(Schema.Finite)

/** Where `Migrate` sends the guest: a URI, or a descriptor that was handed over before. */
export const Target = Schema.Union([
  Schema.TaggedStruct("Uri", { uri: Schema.String }),
  Schema.TaggedStruct("Handed", { token: Schema.String })
])
export type Target = typeof Target.Type

/** How a migration is to be carried out; what is left out has its default. */
export const Tuning = Schema.Struct({
  prefault: Schema.optionalKey(Schema.Struct({ forward: Schema.Finite, backward: Schema.Finite })),
  busyPollMicros: Schema.optionalKey(Schema.Finite),
  /** Names the migration; without it the guest's process finds a name. */
  id: Schema.optionalKey(Schema.String)
})
export type Tuning = typeof Tuning.Type

export const group = RpcGroup.make(
  Rpc.make("Status", { success: Status }),
  Rpc.make("SetBandwidth", { payload: { bytesPerSecond: Bandwidth }, error }),
  Rpc.make("SetBackground", { payload: { on: Schema.Boolean }, error }),
  /** Everything there is to show; with a map of the memory in at most `cells` runs, 0 is without. */
  Rpc.make("Observe", { payload: { cells: Schema.Finite }, success: Observation }),
  Rpc.make("Pause", { error }),
  Rpc.make("Resume", { error }),
  Rpc.make("Cancel", { error }),
  /** Request and answer are JSON text: what they mean is between the caller and the guest. */
  Rpc.make("Call", { payload: { request: Schema.String }, success: Schema.String, error }),
  /** Answers at once; `owesPages`: the process ends only when a destination has fetched them. */
  Rpc.make("Quit", { success: Schema.Struct({ owesPages: Schema.Boolean }) }),
  /** Answers when the migration has ended. A caller that goes away cancels it, if it can be cancelled still. */
  Rpc.make("Migrate", {
    payload: { to: Target, background: Schema.Boolean, maxBandwidth: Bandwidth, ...Tuning.fields },
    success: Report,
    error
  })
)

/** Beside the control socket: takes descriptors. */
export const descriptorPath = (path: string): string => `${path}.fd`

/** A unix socket's address has 107 bytes, and {@link descriptorPath} needs three of them. */
export const MAX_PATH_BYTES = 104
