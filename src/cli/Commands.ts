/**
 * The commands there are, by name and with the sentence that help shows of each. What a command takes and does is in a
 * module of its own, which is loaded only where its name was given: help of one command does not pay for the others.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import type { Failure } from "./Failure.ts"

type Loaded = Command.Command<any, never, {}, Failure, Command.Environment>

interface Entry {
  readonly name: string
  readonly description: string
  readonly load: () => Promise<Loaded>
}

const entries: ReadonlyArray<Entry> = [
  {
    name: "demo",
    description: "Move a built-in guest between two processes of this machine and verify it",
    load: () => import("./demo.ts").then(({ demo }) => demo)
  },
  {
    name: "run",
    description: "Run a guest with a control socket",
    load: () => import("./run.ts").then(({ run }) => run)
  },
  {
    name: "receive",
    description: "Wait for one incoming migration of a guest",
    load: () => import("./receive.ts").then(({ receive }) => receive)
  },
  {
    name: "migrate",
    description: "Send the guest behind a control socket; wait; print the source's report",
    load: () => import("./migrate.ts").then(({ migrate }) => migrate)
  },
  {
    name: "status",
    description: "Role, state and pages of a guest's process",
    load: () => import("./status.ts").then(({ status }) => status)
  },
  {
    name: "set",
    description: "Change the bandwidth limit of a running migration",
    load: () => import("./set.ts").then(({ set }) => set)
  },
  {
    name: "pause",
    description: "Stop the guest; `resume` lets it run on",
    load: () => import("./pause.ts").then(({ pause }) => pause)
  },
  {
    name: "resume",
    description: "Let a paused guest run on; refused once it has moved",
    load: () => import("./resume.ts").then(({ resume }) => resume)
  },
  {
    name: "cancel",
    description: "Cancel a migration that has not switched over; refused after",
    load: () => import("./cancel.ts").then(({ cancel }) => cancel)
  },
  {
    name: "call",
    description: "Ask the guest and print its answer as JSON",
    load: () => import("./call.ts").then(({ call }) => call)
  },
  {
    name: "quit",
    description: "End the guest and its process",
    load: () => import("./quit.ts").then(({ quit }) => quit)
  },
  {
    name: "inspect",
    description: "Decode captured bytes of a channel",
    load: () => import("./inspect.ts").then(({ inspect }) => inspect)
  },
  {
    name: "doctor",
    description: "What this host can do, what is missing, and the command that fixes it",
    load: () => import("./doctor.ts").then(({ doctor }) => doctor)
  },
  {
    name: "qemu",
    description: "Save and restore virtual machines of an unmodified QEMU: a restore runs within milliseconds",
    load: () => import("./qemu.ts").then(({ qemu }) => qemu)
  }
]

/** Completions of a shell are made of everything there is. */
const wantsAll = (args: ReadonlyArray<string>) => args.some((argument) => argument.startsWith("--completions"))

/** A word that is a command's name may be something else, too: then one module is loaded for nothing. */
export const load = (args: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Loaded>> => {
  const all = wantsAll(args)
  return Effect.forEach(entries, ({ description, load, name }) => {
    const command: Effect.Effect<Loaded> = all || args.includes(name)
      ? Effect.promise(load)
      : Effect.succeed(Command.make(name))
    return Effect.map(command, Command.withDescription(description))
  })
}
