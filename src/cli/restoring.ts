/**
 * The entry of `postcopy qemu restore`: of restores there may be many at once, and this one loads what a restore needs and
 * no command tree. What it does not understand goes to the command line as it was given.
 */
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as RestoreWords from "./RestoreWords.ts"

const args = process.argv.slice(2)
const asked = args[0] === "qemu" && args[1] === "restore" ? RestoreWords.parse(args.slice(2)) : undefined
if (asked === undefined) await import("./main.ts")
else {
  const [Ending, Output, QemuRestoring] = await Promise.all([
    import("./Ending.ts"),
    import("./Output.ts"),
    import("./QemuRestoring.ts")
  ])
  const output = Output.make(Output.wantsJson(args))
  const restore = QemuRestoring.restore(asked).pipe(
    Effect.provideService(Output.Output, output),
    // stdout may be the stream of the migration. A logger of our own would load what reads and writes files.
    Effect.provideService(References.LogToStderr, true)
  )
  Ending.run(restore, output, () => undefined)
}
