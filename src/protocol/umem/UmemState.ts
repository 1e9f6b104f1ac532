/**
 * The umem daemon (UMEM_STATE): a set of bits and a pure transition function. It ends when all five end bits are set,
 * in whatever order the two peers bring them about; every step is taken once. A peer that is dead is not waited for,
 * and a source that is lost while pages are missing is told to the guest's side instead of being taken for an end.
 *
 * "Pipe A" is what the daemon writes to the guest's process, "pipe B" what it reads from it.
 */

export const EOS_RECEIVED = 0x01
export const EOC_SENT = 0x02
export const QUIT_RECEIVED = 0x04
export const QUIT_QUEUED = 0x08
export const QUIT_SENT = 0x10
/** All five: the daemon has nothing left to do. */
export const END_MASK = 0x1f
/** EOC is in the queue: every page is there, or none is wanted. EOC_SENT follows when its byte has been written. */
export const EOC_QUEUED = 0x20
/** ERROR is queued: the migration failed. */
export const FAILED = 0x40

/** Some of the bits above. */
export type UmemState = number
export const initial: UmemState = 0

export type UmemEvent =
  /** The EOS word; `complete`: every page of every block is installed or removed. */
  | { readonly _tag: "Eos"; readonly complete: boolean }
  /** Every page of every block is installed or removed, and the end need not wait for EOS: only with flag bit 0. */
  | { readonly _tag: "AllComplete" }
  /** `q` */
  | { readonly _tag: "Quit" }
  /** End of file on pipe B. */
  | { readonly _tag: "ChannelEof" }
  /** Pipe A cannot be written: nobody is there to read. */
  | { readonly _tag: "ChannelBroken" }
  /** The queue towards the source is empty. */
  | { readonly _tag: "LinkWritten" }
  /** The queue of pipe A is empty. */
  | { readonly _tag: "ChannelWritten" }
  /** End of file or an error on the link, or bytes that cannot be. */
  | { readonly _tag: "LinkLost" }
  /** A page could not be installed, for a reason that is no ordinary outcome. */
  | { readonly _tag: "InstallFailed" }

export type UmemAction =
  | "QueueEoc"
  /** Nothing more is read from the source. */
  | "CloseLinkReader"
  /** Nothing more is written to the source; the socket stays open until both ends of stream were seen. */
  | "CloseLinkWriter"
  | "QueueQuit"
  | "CloseChannelReader"
  | "CloseChannelWriter"
  /** Queue `E`, keep the userfaultfd open, exit non-zero once it is written. */
  | "QueueError"
  /** All ends are reached: exit 0. */
  | "Finish"

export interface Transition {
  readonly state: UmemState
  readonly actions: ReadonlyArray<UmemAction>
}

export const eosReceived = (state: UmemState): boolean => (state & EOS_RECEIVED) !== 0
export const eocSent = (state: UmemState): boolean => (state & EOC_SENT) !== 0
export const quitReceived = (state: UmemState): boolean => (state & QUIT_RECEIVED) !== 0
export const quitQueued = (state: UmemState): boolean => (state & QUIT_QUEUED) !== 0
/** Whether all five ends are reached. */
export const isFinished = (state: UmemState): boolean => (state & END_MASK) === END_MASK
/** Whether the machine has ended by an error. */
export const isFailed = (state: UmemState): boolean => (state & FAILED) !== 0
/** Whether faults still lead to requests: nothing may follow an EOC. */
export const sendsRequests = (state: UmemState): boolean => (state & (EOC_QUEUED | EOC_SENT | FAILED)) === 0
/** Whether TRIGGER_PAGE_FAULT may still be sent. */
export const sendsTriggers = (state: UmemState): boolean => (state & (QUIT_QUEUED | FAILED)) === 0

export const transition = (before: UmemState, event: UmemEvent): Transition => {
  const actions: Array<UmemAction> = []
  let state = before
  /** Sets the bits and says whether one of them was new. */
  const enter = (bits: number): boolean => {
    const fresh = (state & bits) !== bits
    state |= bits
    return fresh
  }
  const eoc = () => {
    if (enter(EOC_QUEUED)) actions.push("QueueEoc")
  }
  const quit = () => {
    if (enter(QUIT_QUEUED)) actions.push("QueueQuit")
  }
  const receivedQuit = () => {
    if (!enter(QUIT_RECEIVED)) return
    actions.push("CloseChannelReader")
    eoc()
    quit()
  }

  if (isFinished(before) || isFailed(before)) return { state, actions }
  switch (event._tag) {
    case "Eos":
      if (eosReceived(state)) break
      if (!event.complete && (state & EOC_QUEUED) === 0) {
        enter(FAILED)
        actions.push("QueueError")
        break
      }
      eoc()
      enter(EOS_RECEIVED)
      actions.push("CloseLinkReader")
      quit()
      break
    case "AllComplete":
      eoc()
      quit()
      break
    case "Quit":
    case "ChannelEof":
      receivedQuit()
      break
    case "ChannelBroken":
      // The guest's process is gone: what is queued for it is not waited for, and nothing more is queued.
      if (enter(QUIT_QUEUED | QUIT_SENT)) actions.push("CloseChannelWriter")
      receivedQuit()
      break
    case "LinkWritten":
      if ((state & EOC_QUEUED) !== 0 && enter(EOC_SENT)) actions.push("CloseLinkWriter")
      break
    case "ChannelWritten":
      if (quitQueued(state) && enter(QUIT_SENT)) actions.push("CloseChannelWriter")
      break
    case "LinkLost":
      // Pages are still to come unless EOS, `q`, or the last page was seen: those have queued the EOC.
      if ((state & EOC_QUEUED) === 0) {
        enter(FAILED)
        actions.push("QueueError")
        break
      }
      // No page is wanted any more, so neither the EOS nor the EOC of a dead source is waited for.
      if (enter(EOS_RECEIVED)) actions.push("CloseLinkReader")
      if (enter(EOC_QUEUED | EOC_SENT)) actions.push("CloseLinkWriter")
      break
    case "InstallFailed":
      enter(FAILED)
      actions.push("QueueError")
      break
  }
  if (isFinished(state)) actions.push("Finish")
  return { state, actions }
}
