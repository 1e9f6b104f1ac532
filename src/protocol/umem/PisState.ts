/**
 * The guest's side of the daemon channel (PIS_STATE): a set of bits and a pure transition function. Every step is taken
 * once, whatever the order of the events. "Pipe A" is what the daemon writes, "pipe B" what this side writes.
 */

export const QUIT_RECEIVED = 0x1
export const QUIT_QUEUED = 0x2
export const QUIT_SENT = 0x4
/** The daemon gave up, or is gone: pages will not come. */
export const FAILED = 0x8

/** Some of the bits above. */
export type PisState = number
export const initial: PisState = 0

export type PisEvent =
  /** `Q`: the daemon is done. */
  | { readonly _tag: "Quit" }
  /** The guest's process wants to end. */
  | { readonly _tag: "QuitRequested" }
  /** Everything queued on pipe B is written. */
  | { readonly _tag: "QuitWritten" }
  /** `T`: the daemon asks to touch pages. */
  | { readonly _tag: "TriggerPageFault" }
  /** `E`: the daemon cannot go on. */
  | { readonly _tag: "Error" }
  /** The guest gave memory back. */
  | { readonly _tag: "Unmapped" }
  /** End of file on pipe A. */
  | { readonly _tag: "ChannelEof" }
  /** The messages that had arrived are handled. */
  | { readonly _tag: "TurnEnd" }

export type PisAction =
  /** Pages no longer come from the daemon: let go of what waits for them. */
  | "ReleaseMemory"
  | "CloseChannelReader"
  | "QueueQuit"
  | "CloseChannelWriter"
  | "TouchPages"
  /** Add the touched pages to the `t` that is collected. */
  | "CollectFaulted"
  | "FlushFaulted"
  | "QueueUnmapped"
  | "PauseGuest"

export interface Transition {
  readonly state: PisState
  readonly actions: ReadonlyArray<PisAction>
}

export const isQuitReceived = (state: PisState): boolean => (state & QUIT_RECEIVED) !== 0
export const isQuitQueued = (state: PisState): boolean => (state & QUIT_QUEUED) !== 0
export const isQuitSent = (state: PisState): boolean => (state & QUIT_SENT) !== 0
export const isFailed = (state: PisState): boolean => (state & FAILED) !== 0

export const transition = (state: PisState, event: PisEvent): Transition => {
  const open = !isQuitQueued(state)
  switch (event._tag) {
    case "Quit": {
      const actions: Array<PisAction> = isQuitReceived(state) ? [] : ["ReleaseMemory", "CloseChannelReader"]
      if (open) actions.push("QueueQuit")
      return { state: state | QUIT_RECEIVED | QUIT_QUEUED, actions }
    }
    case "QuitRequested":
      return { state: state | QUIT_QUEUED, actions: open ? ["QueueQuit"] : [] }
    case "QuitWritten":
      if (open || isQuitSent(state)) return { state, actions: [] }
      return { state: state | QUIT_SENT, actions: ["CloseChannelWriter"] }
    case "TriggerPageFault":
      return { state, actions: open ? ["TouchPages", "CollectFaulted"] : ["TouchPages"] }
    case "Unmapped":
      return { state, actions: open ? ["QueueUnmapped"] : [] }
    case "TurnEnd":
      return { state, actions: open ? ["FlushFaulted"] : [] }
    case "ChannelEof":
      if (isQuitReceived(state)) return { state, actions: [] }
      return failed(state)
    case "Error":
      return failed(state)
  }
}

const failed = (state: PisState): Transition =>
  isFailed(state) ? { state, actions: [] } : { state: state | FAILED, actions: ["PauseGuest"] }
