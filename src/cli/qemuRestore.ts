/** `postcopy qemu restore`: an image runs in a waiting QEMU within milliseconds, and its memory follows. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import type * as Effect from "effect/Effect"
import type { Failure } from "./Failure.ts"
import * as Parameters from "./Parameters.ts"
import * as QemuParameters from "./QemuParameters.ts"
import * as QemuRestoring from "./QemuRestoring.ts"

const path = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("FILE"), Flag.withDescription(description), Flag.optional)

/** The command over what carries it out. */
export const over = (run: (asked: QemuRestoring.Asked) => Effect.Effect<void, Failure>) =>
  Command.make(
    "restore",
    {
      image: QemuParameters.image,
      uri: Argument.String("uri").pipe(
        Argument.withDescription(
          "Where the destination listens: tcp:HOST:PORT, unix:PATH, fd:N, or - for stdin and stdout"
        )
      ),
      qmp: QemuParameters.qmp,
      nobg: Parameters.nobg,
      maxBandwidth: Flag.optional(Parameters.maxBandwidth),
      record: path("record", "Write the order of first touches to this file"),
      replay: path("replay", "Push the pages of a recording first"),
      resume: Parameters.toggle("resume", "Go on with a destination whose source is gone (postcopy-paused)"),
      preempt: Parameters.toggle(
        "preempt",
        "A second connection for requested pages (postcopy-preempt at the destination)"
      )
    },
    run
  ).pipe(
    Command.withDescription("Run an image in a waiting QEMU; its memory follows by post-copy"),
    Command.withExamples([
      {
        command: "postcopy qemu restore snap unix:in.sock --qmp vm.qmp",
        description: "Into a QEMU started with -incoming defer"
      },
      {
        command: "postcopy qemu restore snap unix:in.sock --qmp vm.qmp --resume",
        description: "Go on after a broken restore"
      }
    ])
  )

export const restore = over(QemuRestoring.restore)
