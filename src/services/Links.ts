/**
 * How a migration gets its link: connect on the source, listen on the destination. The default works on raw descriptors
 * of the addon and, on a source without the addon, on Node's sockets. `LinkMemory.layer` joins both ends in memory.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Descriptor } from "userfaultfd-napi"
import { type InvalidArgument, type LinkFailed, type Refused, Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import * as Endpoint from "./Endpoint.ts"
import type { Link } from "./Link.ts"
import * as NativeLink from "./NativeLink.ts"
import * as SocketLink from "./SocketLink.ts"

export type LinkError = InvalidArgument | Refused | LinkFailed | Unsupported

export interface Listener {
  /** The bound address. */
  readonly uri: string
  /** Waits for a connection. The link is the caller's to close. */
  readonly accept: Effect.Effect<Link, LinkFailed>
  /** Stops listening and removes the socket file; also at the end of the scope. */
  readonly close: Effect.Effect<void>
}

export interface LinksShape {
  /** The link is the caller's to close. */
  readonly connect: (to: string | Descriptor) => Effect.Effect<Link, LinkError>
  readonly listen: (uri: string) => Effect.Effect<Listener, LinkError, Scope.Scope>
}

/** Over the kernel. */
export const native: LinksShape = {
  connect: Effect.fnUntraced(function*(to) {
    const addon = Binding.load()
    if (typeof to !== "string") {
      if (addon === undefined) return yield* new Unsupported({ detail: Binding.failure() })
      return yield* NativeLink.adopt(addon, to, "the descriptor")
    }
    const endpoint = yield* Effect.fromResult(Endpoint.parse(to))
    return yield* (addon === undefined ? SocketLink.connect(endpoint, to) : NativeLink.connect(addon, endpoint, to))
  }),
  listen: Effect.fnUntraced(function*(uri) {
    const endpoint = yield* Effect.fromResult(Endpoint.parse(uri))
    const addon = Binding.load()
    if (addon === undefined) return yield* new Unsupported({ detail: Binding.failure() })
    return yield* NativeLink.listen(addon, endpoint)
  })
}

export const Links: Context.Reference<LinksShape> = Context.Reference("postcopy/services/Links", {
  defaultValue: () => native
})
