/**
 * The command line: composes the commands and runs the one that was asked for. Each command loads what it needs when it runs, so that `--help` stays fast.
 */
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Commands from "./Commands.ts"
import * as Ending from "./Ending.ts"
import * as Environment from "./Environment.ts"
import * as Output from "./Output.ts"
import { Json } from "./Parameters.ts"
import { presenter, usageFailure } from "./Presentation.ts"
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

/** Usage errors are told by the parser's own type, which only this entry knows. */
const usageOf = (error: unknown) =>
  CliError.isCliError(error) && error._tag === "ShowHelp" ? usageFailure(error) : undefined

const postcopy = Effect.fnUntraced(function*(args: ReadonlyArray<string>) {
  const root = Command.make("postcopy").pipe(
    Command.withDescription("Moves running guests between processes and hosts by post-copy"),
    Command.withSubcommands(yield* Commands.load(args)),
    Command.withGlobalFlags([Json])
  )
  yield* Command.runWith(root, { version })(args)
})

Ending.run(postcopy(args).pipe(Effect.provide(context)), output, usageOf)
