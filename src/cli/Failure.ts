/**
 * The one error a command ends with: what is printed, under which tag, and the exit code. Errors of the library keep
 * their own types up to here; this file alone knows which exit code each of them is (interface: exit codes).
 */
import * as Data from "effect/Data"
import { type GuestError, remedyOf } from "../guests/GuestError.ts"
import { exitCode, type MigrationError } from "../MigrationError.ts"

export class Failure extends Data.TaggedError("Failure")<{
  /** What went wrong, for programs: the `tag` of `--json`. */
  readonly tag: string
  /** One sentence: what, where, the remedy. Empty: there is nothing to say that was not said already. */
  readonly message: string
  readonly code: number
  /** More fields of the `--json` error object. */
  readonly details?: Readonly<Record<string, unknown>>
}> {}

/** The command line is wrong, or the request is refused: nothing happened. */
export const usage = (message: string): Failure => new Failure({ tag: "InvalidArgument", message, code: 1 })

/** Ends the process with `code`; what there was to say has been said. */
export const silent = (code: number): Failure => new Failure({ tag: "Ended", message: "", code })

/** Phases in which a guest's code fails before there is anything to lose; `call` fails for its caller only. */
const harmless: ReadonlyArray<string> = ["load", "blocks", "start", "call"]

const codeOf = (error: MigrationError): number => {
  const { guest, reason, side } = error
  if (reason._tag === "GuestFailed" && guest === "none" && harmless.includes(reason.phase)) return 1
  const code = exitCode(error)
  // "Try again" is for the source to say: a destination that has failed has nothing to try with.
  return side === "destination" && code === 75 ? (reason._tag === "MalformedInput" ? 65 : 70) : code
}

export const fromMigration = (error: MigrationError): Failure =>
  new Failure({
    tag: error.reason._tag,
    message: error.message,
    code: codeOf(error),
    details: error.guest === "none" ? {} : { guest: error.guest }
  })

export const fromGuest = (error: GuestError): Failure =>
  new Failure({
    tag: "GuestError",
    message: `${error.message}; ${remedyOf(error.phase)}`,
    code: harmless.includes(error.phase) ? 1 : 70,
    details: { phase: error.phase }
  })

/** The same failure with another exit code. */
export const withCode = ({ details = {}, message, tag }: Failure, code: number): Failure =>
  new Failure({ tag, message, code, details })

export const from = (error: GuestError | MigrationError | Failure): Failure => {
  switch (error._tag) {
    case "Failure":
      return error
    case "MigrationError":
      return fromMigration(error)
    case "GuestError":
      return fromGuest(error)
  }
}

/** The error object of events and of stderr under `--json`. */
export const toObject = (failure: Failure): Readonly<Record<string, unknown>> => ({
  tag: failure.tag,
  ...failure.details,
  message: failure.message
})
