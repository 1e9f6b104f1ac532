/**
 * The command line: composes the commands, runs the one that was asked for, and is the one place that turns an outcome
 * into words on stderr and an exit code. Each command loads what it needs when it runs, so that `--help` stays fast.
 */
import * as Cause from "effect/Cause"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Runtime from "effect/Runtime"
import * as Commands from "./Commands.ts"
import * as Environment from "./Environment.ts"
import { Failure } from "./Failure.ts"
import * as Output from "./Output.ts"
import { Json } from "./Parameters.ts"
import { presenter, usageFailure } from "./Presentation.ts"
import * as Signals from "./Signals.ts"
import { version } from "./Version.ts"
import { joinWeb } from "./Viewing.ts"

const args = joinWeb(process.argv.slice(2))
const output = Output.make(Output.wantsJson(args))

const context = Layer.mergeAll(
  Environment.layer,
  Layer.succeed(Output.Output, output),
  CliOutput.layerPresenter(presenter(output)),
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel] }),
  Logger.layer([Logger.withConsoleError(output.json ? Logger.formatJson : Logger.formatSimple)])
)

const failureOf = (cause: Cause.Cause<unknown>): Failure => {
  if (Cause.hasInterruptsOnly(cause)) {
    return new Failure({ tag: "Interrupted", message: "interrupted", code: Signals.INTERRUPTED })
  }
  const error = Cause.squash(cause)
  if (error instanceof Failure) return error
  if (CliError.isCliError(error) && error._tag === "ShowHelp") return usageFailure(error)
  const what = error instanceof Error ? error.message : String(error)
  return new Failure({
    tag: "Defect",
    message: `internal error: ${what}; this is a bug of postcopy, please report it`,
    code: 70
  })
}

const runMain = Runtime.makeRunMain(({ fiber }) => {
  const uninstall = Signals.install(() => fiber.interruptUnsafe(fiber.id))
  fiber.addObserver((exit) => {
    const failure = Exit.isFailure(exit) ? failureOf(exit.cause) : undefined
    if (failure !== undefined) Effect.runSync(output.fail(failure))
    Output.flushed(() => {
      uninstall()
      const lost = failure === undefined ? Output.lostResult() : undefined
      if (lost !== undefined) Effect.runSync(output.fail(lost))
      process.exit((failure ?? lost)?.code ?? 0)
    })
  })
})

const postcopy = Effect.fnUntraced(function*(args: ReadonlyArray<string>) {
  const root = Command.make("postcopy").pipe(
    Command.withDescription("Moves running guests between processes and hosts by post-copy"),
    Command.withSubcommands(yield* Commands.load(args)),
    Command.withGlobalFlags([Json])
  )
  yield* Command.runWith(root, { version })(args)
})

postcopy(args).pipe(
  Effect.provide(context),
  runMain({ disableErrorReporting: true })
)
