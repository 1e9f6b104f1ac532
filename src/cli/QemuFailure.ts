/** What a `qemu` command ends with: the exit code says whether a guest still runs where it was. */
import type { QemuReason } from "../qemu/QemuError.ts"
import { Failure } from "./Failure.ts"

/** Exit codes of the interface: `75` where the guest is as it was before, `70` otherwise. */
const codeOf = (reason: QemuReason, unharmed: boolean): number => {
  switch (reason._tag) {
    case "InvalidArgument":
    case "Refused":
      return 1
    case "Unsupported":
      return 69
    case "MalformedInput":
      return 65
    case "ImageFailed":
      return reason.kind === "damaged" ? 65 : reason.kind === "unwritable" ? (unharmed ? 75 : 70) : 1
    case "LinkFailed":
    case "QmpFailed":
      return unharmed ? 75 : 70
  }
}

/** `unharmed`: a failure leaves the guest as it was. */
export const fromQemu = (unharmed: boolean) => (reason: QemuReason): Failure =>
  new Failure({ tag: reason._tag, message: reason.detail, code: codeOf(reason, unharmed) })
