/**
 * Where the actors meet: every message type, queue capacity and port between them. No actor imports another. A *port* is
 * a synchronous function one actor offers to another for the fault path, which may not wait for a queue; a *mailbox*
 * carries everything that changes a state machine.
 */
import type { Reason } from "../MigrationError.ts"
import type { SourceRequest } from "../protocol/Dialect.ts"

/** RequestReceiver to SourceSender: how the request stream ended. At most one of them is ever sent. */
export type SenderMessage =
  | { readonly _tag: "Eoc" }
  /** The connection ended without an EOC. */
  | { readonly _tag: "ReceiveEof"; readonly reason: Reason }
  /** It failed, or what came cannot be a request. */
  | { readonly _tag: "ReceiveError"; readonly reason: Reason }

/** SourceSender's port for the RequestReceiver. Never refuses: what it keeps is bounded by the number of pages. */
export interface PageServer {
  readonly serve: (request: SourceRequest) => void
}

/** RequestReceiver's port for the SourceSender: reads what has arrived, between two chunks of background data. */
export interface RequestSource {
  readonly poll: () => void
  /** True once nothing more is read: the link, readable for ever at its end, must not be waited for then. */
  readonly ended: () => boolean
}

/** From the channel's reader to the UmemDaemon: messages of the guest's side of the pipe protocol. */
export type DaemonMessage =
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Quit" }
  | { readonly _tag: "PageFaulted"; readonly pages: Float64Array }
  | { readonly _tag: "PageUnmapped"; readonly pages: Float64Array }
  /** End of the channel, or bytes that are no message: the guest's process is gone or mad. */
  | { readonly _tag: "ChannelClosed" }
  /** From the data path: something changed that the state machine has to see. */
  | { readonly _tag: "Wake" }

/** From the channel's reader to the DestinationHandler: messages of the daemon's side. */
export type HandlerMessage =
  | { readonly _tag: "Ready" }
  | { readonly _tag: "TriggerPageFault"; readonly pages: Float64Array }
  | { readonly _tag: "Quit" }
  | { readonly _tag: "Error" }
  | { readonly _tag: "ChannelClosed"; readonly detail: string }
  /** From the guest: it gave a range back. */
  | { readonly _tag: "Discarded"; readonly idstr: string; readonly offset: number; readonly length: number }
  /** From the owner: the guest's process wants to end. */
  | { readonly _tag: "QuitRequested" }

/** Messages an actor may be behind. Beyond it whoever produces them stops reading: the channel, never the faults. */
export const MAILBOX_CAPACITY = 64
