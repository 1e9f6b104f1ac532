/**
 * The one error of a migration. Its `reason` says what went wrong, `guest` where the guest is now: that is what an
 * operator has to know first. Being schemas, errors cross the control socket as they are.
 */
import * as Schema from "effect/Schema"
import { remedyOf } from "./guests/GuestError.ts"

const detail = { detail: Schema.String }

/** The call itself is wrong: a URI, a flag, a descriptor. */
export class InvalidArgument extends Schema.TaggedError<InvalidArgument>()("InvalidArgument", detail) {}
/** The call is right and not possible now: cancel after the latch, a second migration, a paused guest resumed after it moved. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", detail) {}
/** The peer sent what the protocol does not allow. `offset`: bytes from the start of that stream, -1 if unknown. */
export class MalformedInput extends Schema.TaggedError<MalformedInput>()("MalformedInput", {
  ...detail,
  offset: Schema.Int
}) {}
/** This host cannot: no userfaultfd, no addon, `exec:`. */
export class Unsupported extends Schema.TaggedError<Unsupported>()("Unsupported", detail) {}
/** The connection failed or ended. `code` is the errno's name, "EOF" for an end where none may be, or "TIMEOUT". */
export class LinkFailed extends Schema.TaggedError<LinkFailed>()("LinkFailed", { ...detail, code: Schema.String }) {}
/** The umem daemon could not start, or is gone while pages were missing. */
export class DaemonFailed extends Schema.TaggedError<DaemonFailed>()("DaemonFailed", detail) {}
/** The guest's own code or thread failed. */
export class GuestFailed
  extends Schema.TaggedError<GuestFailed>()("GuestFailed", { ...detail, phase: Schema.String })
{}
/** Cancelled by request before the switchover. */
export class Cancelled extends Schema.TaggedError<Cancelled>()("Cancelled", detail) {}

export const Reason = Schema.Union([
  InvalidArgument,
  Refused,
  MalformedInput,
  Unsupported,
  LinkFailed,
  DaemonFailed,
  GuestFailed,
  Cancelled
])
export type Reason = typeof Reason.Type

/**
 * Where the guest is: `source` still runs it as if nothing had happened · `destination` runs it · `unknown`: the switchover
 * was sent and nothing came back · `parked`: it waits at the destination for memory that will not come · `none`: there
 * is no guest (it never started, or is lost).
 */
export const GuestIs = Schema.Literals(["source", "destination", "unknown", "parked", "none"])
export type GuestIs = typeof GuestIs.Type

const whereabouts: Record<GuestIs, string> = {
  source: "the guest still runs at the source",
  destination: "the guest runs at the destination",
  unknown: "the guest may or may not run at the destination; it does not run here again",
  parked: "the guest is parked at the destination: it waits for memory that cannot come",
  none: ""
}

/** What to do, behind where the guest is; for reasons that do not say it themselves. */
const remedies: Record<GuestIs, string> = {
  source: ", and can be migrated again",
  destination: ": its status there says how much of its memory has come",
  unknown: ": look at the destination's status first",
  parked: "; quit it there and start from a backup",
  none: ""
}

/** Where there is no guest any more, or not yet: what helps depends on what failed. */
const afresh: Partial<Record<Reason["_tag"], string>> = {
  DaemonFailed: "; nothing is lost at the source: receive again, and see what the daemon says on stderr",
  MalformedInput: "; run the same version of postcopy on both sides"
}

/** What is called wrong or at the wrong time says in its detail what would be right. */
const selfExplaining: ReadonlyArray<Reason["_tag"]> = ["InvalidArgument", "Refused", "Unsupported"]

/** A migration failed: why, on which side, and where the guest is. */
export class MigrationError extends Schema.TaggedError<MigrationError>()("MigrationError", {
  side: Schema.Literals(["source", "destination"]),
  guest: GuestIs,
  reason: Reason
}) {
  override readonly cause = this.reason
  override get message() {
    const { _tag: tag, detail } = this.reason
    if (this.guest === "none") {
      const remedy = this.reason._tag === "GuestFailed" ? `; ${remedyOf(this.reason.phase)}` : afresh[tag] ?? ""
      return `${detail}${remedy}`
    }
    // Whoever is parked stays so, whatever was asked of it.
    const known = selfExplaining.includes(tag) && this.guest !== "parked"
    return `${detail}; ${whereabouts[this.guest]}${known ? "" : remedies[this.guest]}`
  }
}

/** Process exit code of a failure (interface: exit codes). */
export const exitCode = ({ guest, reason, side }: MigrationError): number => {
  switch (reason._tag) {
    case "InvalidArgument":
    case "Refused":
      return 1
    case "Unsupported":
      return 69
    case "MalformedInput":
      if (side === "destination" && guest !== "parked") return 65
  }
  return side === "source" && guest === "source" ? 75 : 70
}
