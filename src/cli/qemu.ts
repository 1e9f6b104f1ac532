/** `postcopy qemu`: images of virtual machines of an unmodified QEMU, and restoring them by post-copy. */
import * as Command from "effect/cli/Command"
import { info, verify } from "./qemuInfo.ts"
import { relay } from "./qemuRelay.ts"
import { restore } from "./qemuRestore.ts"
import { save } from "./qemuSave.ts"

export const qemu = Command.make("qemu").pipe(
  Command.withSubcommands([save, restore, relay, info, verify])
)
