/**
 * `postcopy qemu save`: a running virtual machine becomes an image. Interrupted or failed before QEMU has finished, it
 * leaves the machine as it was.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Addresses from "./Addresses.ts"
import { usage } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"
import { fromQemu } from "./QemuFailure.ts"
import * as QemuParameters from "./QemuParameters.ts"
import * as QemuReporting from "./QemuReporting.ts"

export const save = Command.make(
  "save",
  {
    qmp: QemuParameters.qmpArgument,
    image: QemuParameters.image,
    live: Parameters.toggle(
      "live",
      "The guest runs on while it is captured, as it was at the start (background-snapshot)"
    ),
    resume: Parameters.toggle("resume", "Let the guest run on once it is captured; otherwise it is left paused"),
    maxBandwidth: Flag.optional(Parameters.maxBandwidth)
  },
  Effect.fnUntraced(function*({ image, live, maxBandwidth, qmp, resume }) {
    if (live && resume) return yield* usage("--live keeps the guest running: --resume means nothing then")
    const address = yield* Addresses.resolveQmp(qmp)
    const SaveMachine = yield* Effect.promise(() => import("../qemu/SaveMachine.ts"))
    const output = yield* Output
    const { progress } = output
    const { bytesReceived, guestIs, manifest, stoppedMs } = yield* SaveMachine.save({
      qmp: address,
      image,
      live,
      resume,
      maxBandwidth: Option.getOrUndefined(maxBandwidth)?.bytesPerSecond,
      ...(progress !== undefined && {
        onProgress: (received: number, total: number) => progress(QemuReporting.progress("saving", received, total))
      })
    }).pipe(Effect.mapError(fromQemu(true)))
    yield* output.emit(
      { event: "saved", image, guest: guestIs, stoppedMs, bytesReceived, ...QemuReporting.summary(manifest) },
      [
        `saved ${image}: ${QemuReporting.describeSize(manifest)}`,
        `  the guest is ${guestIs}${stoppedMs === null ? "" : `; it stood still for ${stoppedMs.toFixed(0)} ms`}`
      ].join("\n")
    )
  })
).pipe(
  Command.withDescription("Capture a running virtual machine into an image"),
  Command.withExamples([
    { command: "postcopy qemu save vm.qmp snap", description: "Stops the guest, captures it, leaves it paused" },
    { command: "postcopy qemu save vm.qmp snap --live", description: "The guest runs on" }
  ])
)
