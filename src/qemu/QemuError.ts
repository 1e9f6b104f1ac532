/**
 * What can go wrong between this program and a QEMU: the reasons of a migration, and two of its own. Where the guest is
 * now stands in the sentence, because only the step that failed knows it.
 */
import * as Schema from "effect/Schema"
import type { InvalidArgument, LinkFailed, MalformedInput, Refused, Unsupported } from "../MigrationError.ts"

/** QEMU's monitor refused a command, or says that its migration failed. */
export class QmpFailed extends Schema.TaggedError<QmpFailed>()("QmpFailed", {
  command: Schema.String,
  detail: Schema.String
}) {}

/**
 * An image is not what it says (`damaged`), is not there (`unreadable`), may not be replaced (`exists`), or cannot be
 * written. `path`: the file that is wrong.
 */
export class ImageFailed extends Schema.TaggedError<ImageFailed>()("ImageFailed", {
  kind: Schema.Literals(["damaged", "unreadable", "exists", "unwritable"]),
  path: Schema.String,
  detail: Schema.String
}) {}

export type QemuReason =
  | QmpFailed
  | ImageFailed
  | InvalidArgument
  | LinkFailed
  | MalformedInput
  | Refused
  | Unsupported
