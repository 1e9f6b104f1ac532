/** `postcopy run`: starts a guest in this process and stays with it, also after it has moved away, until it is told to go. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Exporting from "./Exporting.ts"
import { from } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Parameters from "./Parameters.ts"

export const run = Command.make(
  "run",
  {
    guest: Parameters.guest,
    control: Flag.optional(Parameters.control),
    memory: Parameters.memory,
    otlp: Exporting.otlp,
    metrics: Exporting.metrics,
    leash: Parameters.leash
  },
  Effect.fnUntraced(function*(flags) {
    const { control, guest, leash, memory } = flags
    const module = yield* Parameters.resolveGuest(guest)
    const [GuestProcess, Migration, ExitGuard] = yield* Effect.promise(() =>
      Promise.all([import("./GuestProcess.ts"), import("../Migration.ts"), import("../guests/ExitGuard.ts")])
    )
    const output = yield* Output
    ExitGuard.install()
    if (leash) GuestProcess.leash()
    const path = Option.getOrUndefined(control)
    const claimed = yield* GuestProcess.claim(path)
    const handle = yield* Migration.run(module, { memoryMiB: Option.getOrUndefined(memory) }).pipe(
      Effect.mapError(from)
    )
    yield* Exporting.follow(flags, handle)
    const process = yield* GuestProcess.open({
      guest: handle,
      control: claimed,
      migrate: Migration.migrate,
      endsBy: () => true
    })
    yield* output.emit(
      { event: "running", ...(path === undefined ? {} : { control: path }) },
      path === undefined ? "running" : `running; control socket: ${path}`
    )
    yield* process.leave(yield* process.ended)
  }, (effect, flags) => Exporting.exported(flags)(Effect.scoped(effect)))
).pipe(
  Command.withExamples([{
    command: "postcopy run ./guest.ts --control vm.sock --memory 256",
    description: "The guest runs until `postcopy quit` or a signal"
  }])
)
