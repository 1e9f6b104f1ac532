/** Messages of the daemon channel as the mailboxes of its two ends know them. */
import type { PipeMessage } from "../protocol/umem/Pipe.ts"
import type { DaemonMessage, HandlerMessage } from "./Mailboxes.ts"

/** A message of the daemon's, for the guest's side. */
export const toHandler = (message: PipeMessage): HandlerMessage => {
  switch (message._tag) {
    case "Ready":
    case "Error":
    case "Quit":
      return { _tag: message._tag }
    case "TriggerPageFault":
      return { _tag: "TriggerPageFault", pages: message.pages }
    default:
      return { _tag: "ChannelClosed", detail: `it sent ${message._tag}, which is not the daemon's to send` }
  }
}

/** A message of the guest's side, for the daemon. */
export const toDaemon = (message: PipeMessage): DaemonMessage => {
  switch (message._tag) {
    case "Ready":
    case "Quit":
      return { _tag: message._tag }
    case "PageFaulted":
    case "PageUnmapped":
      return { _tag: message._tag, pages: message.pages }
    default:
      return { _tag: "ChannelClosed" }
  }
}
