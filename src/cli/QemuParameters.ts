/** Arguments that several `qemu` commands share. */
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"

export const image = Argument.String("image").pipe(
  Argument.withDescription("Directory of the image")
)

export const qmpArgument = Argument.String("qmp").pipe(
  Argument.withDescription("QMP socket of the QEMU: a path, unix:PATH or tcp:HOST:PORT")
)

export const qmp = Flag.String("qmp").pipe(
  Flag.withMetavar("QMP"),
  Flag.withDescription("QMP socket of the destination: sets its capabilities and starts the listening"),
  Flag.optional
)
