/**
 * The source after the switchover (PO_STATE), as a pure transition function.
 *
 *   ACTIVE ──all sent──▶ ALL_PAGES_SENT ──EOC──▶ COMPLETED
 *     ├──EOC──▶ EOC_RECEIVED ──tick: EOS──▶ COMPLETED
 *     └──error or end of file──▶ ERROR_RECEIVE ──tick──▶ failed
 */
import type { Request } from "./Request.ts"

export type PoState = "ERROR_RECEIVE" | "ACTIVE" | "EOC_RECEIVED" | "ALL_PAGES_SENT" | "COMPLETED"

export type PoEvent =
  | { readonly _tag: Exclude<Request["_tag"], "Eoc"> }
  /** End of connection: the destination needs nothing more. */
  | { readonly _tag: "Eoc" }
  /** A request that cannot be, or an error of the connection. */
  | { readonly _tag: "ReceiveError" }
  /** The connection ended without an EOC. */
  | { readonly _tag: "ReceiveEof" }
  /** The sender may go on; `dirty`: pages not sent yet, over all blocks. */
  | { readonly _tag: "Tick"; readonly background: boolean; readonly dirty: number }
  /** The same with `dirty` 0. */
  | { readonly _tag: "AllSent" }

export type PoAction =
  | "MarkAllDirty"
  | "ArmReader"
  /** Send those of the request's pages that are dirty, before any background page. */
  | "ServePages"
  | "ClearDirty"
  | "DisarmReader"
  | "CloseReader"
  | "SendBackground"
  | "QueueEos"
  /** Every page is sent and the destination has confirmed. */
  | "Succeed"
  /** Every page is sent, and the connection ended before the destination confirmed: bytes in flight may be lost. */
  | "EndUnacknowledged"
  | "Fail"

export interface Transition {
  readonly state: PoState
  readonly actions: ReadonlyArray<PoAction>
}

/** The switchover's byte is written: the guest never runs here again. */
export const begin: Transition = { state: "ACTIVE", actions: ["MarkAllDirty", "ArmReader"] }

const stay = (state: PoState, ...actions: ReadonlyArray<PoAction>): Transition => ({ state, actions })

const active = (event: PoEvent): Transition => {
  switch (event._tag) {
    case "Init":
      return stay("ACTIVE")
    case "OnDemand":
    case "OnDemandCont":
    case "Background":
    case "BackgroundCont":
      return stay("ACTIVE", "ServePages")
    case "Remove":
      return stay("ACTIVE", "ClearDirty")
    case "Eoc":
      return { state: "EOC_RECEIVED", actions: ["DisarmReader"] }
    case "ReceiveError":
    case "ReceiveEof":
      return { state: "ERROR_RECEIVE", actions: ["CloseReader"] }
    case "AllSent":
      return { state: "ALL_PAGES_SENT", actions: ["QueueEos"] }
    case "Tick":
      if (event.dirty === 0) return { state: "ALL_PAGES_SENT", actions: ["QueueEos"] }
      return event.background ? stay("ACTIVE", "SendBackground") : stay("ACTIVE")
  }
}

export const transition = (state: PoState, event: PoEvent): Transition => {
  switch (state) {
    case "ACTIVE":
      return active(event)
    case "EOC_RECEIVED":
      // The reader is disarmed: whatever the connection does now is no event of this machine.
      return event._tag === "Tick" || event._tag === "AllSent"
        ? { state: "COMPLETED", actions: ["QueueEos", "Succeed"] }
        : stay(state)
    case "ALL_PAGES_SENT":
      if (event._tag === "Eoc") return { state: "COMPLETED", actions: ["CloseReader", "Succeed"] }
      if (event._tag === "ReceiveError" || event._tag === "ReceiveEof") {
        return { state: "COMPLETED", actions: ["CloseReader", "EndUnacknowledged"] }
      }
      return stay(state)
    case "ERROR_RECEIVE":
      return event._tag === "Tick" || event._tag === "AllSent" ? stay(state, "Fail") : stay(state)
    case "COMPLETED":
      return stay(state)
  }
}

/** Whether requests still lead to pages. */
export const servesRequests = (state: PoState): boolean => state === "ACTIVE"
