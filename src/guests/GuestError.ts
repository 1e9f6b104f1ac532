/**
 * What goes wrong inside a guest, or with the thread it runs in. One error with the phase it came from: a `call` that
 * threw concerns its caller only, while a `step` that threw ended the guest.
 */
import * as Schema from "effect/Schema"

/** Where in a guest's life the error came from; `thread`: its thread ended or broke a rule. */
export const Phase = Schema.Literals(["load", "blocks", "start", "step", "call", "save", "restore", "grow", "thread"])
export type Phase = typeof Phase.Type

/** What helps, by where it went wrong; a word that is no phase of a guest's life is a failure of its memory. */
export const remedyOf = (phase: string): string => {
  switch (phase) {
    case "call":
      return "the guest runs on: ask it for what its `call` knows"
    case "thread":
      return "see what the guest wrote, and start it anew"
    case "load":
    case "blocks":
    case "start":
      return "correct the guest's module and start it again"
    default:
      return "correct the guest's module; this guest starts anew, or from a backup"
  }
}

export class GuestError extends Schema.TaggedError<GuestError>()("GuestError", {
  phase: Phase,
  message: Schema.String,
  /** The stack of what the guest threw, where there is one: for its author. */
  trace: Schema.optionalKey(Schema.String)
}) {}
