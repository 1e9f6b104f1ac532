/**
 * The source's migration as a whole, as a pure transition function. The phase stays what it was when a migration
 * ends: after POSTCOPY it is the latch that keeps the guest from ever running here again.
 *
 *   SETUP ──▶ ACTIVE/PRECOPY ──switchover──▶ ACTIVE/POSTCOPY ──▶ COMPLETED
 *     └──▶ ERROR ◀──┴──▶ CANCELLED              └──▶ ERROR
 */

export interface MigrationState {
  readonly status: "SETUP" | "ACTIVE" | "COMPLETED" | "CANCELLED" | "ERROR"
  readonly phase: "PRECOPY" | "POSTCOPY"
}

export type MigrationEvent =
  | { readonly _tag: "Connected" }
  | { readonly _tag: "ConnectFailed" }
  /** A round of the live sections: failed, to be continued, or done. */
  | { readonly _tag: "Iterated"; readonly result: -1 | 0 | 1 }
  /** END, FULL and all before the EOF byte are written and drained. */
  | { readonly _tag: "Drained" }
  /** The guest could not be stopped, or one of the above could not be written. */
  | { readonly _tag: "CompletionFailed" }
  /** What a step of the post-copy phase came to: failed, to be continued, or done. */
  | { readonly _tag: "Stepped"; readonly result: -1 | 0 | 1 }
  | { readonly _tag: "Cancel" }
  /** Somebody wants the guest to run here. */
  | { readonly _tag: "Resume" }

export type MigrationAction =
  | "WriteStart"
  | "WriteRound"
  | "StopGuest"
  | "WriteCompletion"
  /** Write the EOF byte: the switchover. */
  | "WriteEof"
  | "BeginPostcopy"
  /** Let the guest run if it ran before. Writes nothing to the destination. */
  | "RestartGuest"
  | "StepPostcopy"
  | "Cleanup"
  | "ReportSuccess"
  | "ReportFailure"
  | "Refuse"

export interface Transition {
  readonly state: MigrationState
  readonly actions: ReadonlyArray<MigrationAction>
}

export const initial: MigrationState = { status: "SETUP", phase: "PRECOPY" }

/** Whether the guest may never run here again. */
export const isLatched = (state: MigrationState): boolean => state.phase === "POSTCOPY"

const ended = (
  state: MigrationState,
  status: "COMPLETED" | "CANCELLED" | "ERROR",
  ...actions: ReadonlyArray<MigrationAction>
): Transition => ({ state: { ...state, status }, actions })

export const transition = (state: MigrationState, event: MigrationEvent): Transition => {
  const stay = (...actions: ReadonlyArray<MigrationAction>): Transition => ({ state, actions })
  if (event._tag === "Resume") return isLatched(state) ? stay("Refuse") : stay("RestartGuest")
  if (state.status === "SETUP") {
    switch (event._tag) {
      case "Connected":
        return { state: { status: "ACTIVE", phase: "PRECOPY" }, actions: ["WriteStart", "WriteRound"] }
      case "ConnectFailed":
        return ended(state, "ERROR", "Cleanup", "ReportFailure")
      case "Cancel":
        return ended(state, "CANCELLED", "Cleanup")
      default:
        return stay()
    }
  }
  if (state.status !== "ACTIVE") return event._tag === "Cancel" ? stay("Refuse") : stay()
  if (state.phase === "POSTCOPY") {
    if (event._tag === "Cancel") return stay("Refuse")
    if (event._tag !== "Stepped") return stay()
    if (event.result > 0) return ended(state, "COMPLETED", "Cleanup", "ReportSuccess")
    return event.result < 0 ? ended(state, "ERROR", "Cleanup", "ReportFailure") : stay("StepPostcopy")
  }
  switch (event._tag) {
    case "Iterated":
      if (event.result < 0) return ended(state, "ERROR", "Cleanup", "ReportFailure")
      return event.result === 0 ? stay("WriteRound") : stay("StopGuest", "WriteCompletion")
    case "Drained":
      return { state: { status: "ACTIVE", phase: "POSTCOPY" }, actions: ["WriteEof", "BeginPostcopy"] }
    case "CompletionFailed":
      return ended(state, "ERROR", "RestartGuest", "Cleanup", "ReportFailure")
    case "Cancel":
      return ended(state, "CANCELLED", "RestartGuest", "Cleanup")
    default:
      return stay()
  }
}
