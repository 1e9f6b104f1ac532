/** `postcopy qemu info`: what an image holds and which destination it needs; `qemu verify`: whether all of it is as it was written. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "./Output.ts"
import { fromQemu } from "./QemuFailure.ts"
import * as QemuParameters from "./QemuParameters.ts"
import * as QemuReporting from "./QemuReporting.ts"

const load = Effect.promise(() => import("../qemu/Image.ts"))

export const info = Command.make(
  "info",
  { image: QemuParameters.image },
  Effect.fnUntraced(function*({ image }) {
    const Image = yield* load
    const output = yield* Output
    const { manifest } = yield* Image.open(image).pipe(Effect.mapError(fromQemu(false)))
    const { configuration: _, ...told } = manifest
    yield* output.emit({ image, ...QemuReporting.summary(manifest), ...told }, QemuReporting.describe(manifest))
  })
).pipe(Command.withDescription("Show what an image holds, and which destination it needs"))

export const verify = Command.make(
  "verify",
  { image: QemuParameters.image },
  Effect.fnUntraced(function*({ image }) {
    const Image = yield* load
    const output = yield* Output
    const opened = yield* Image.open(image).pipe(Effect.mapError(fromQemu(false)))
    yield* Image.verify(opened).pipe(Effect.mapError(fromQemu(false)))
    yield* output.emit(
      { event: "verified", image, ...QemuReporting.summary(opened.manifest) },
      `${image} is whole: ${QemuReporting.describeSize(opened.manifest)}`
    )
  })
).pipe(Command.withDescription("Read all of an image and compare it with its checksums"))
