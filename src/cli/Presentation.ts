/**
 * How help, version and usage errors appear. Help that was asked for is a result and goes to stdout; under `--json` it
 * is text, which stdout must not carry. A usage error is one sentence that names where the usage is found.
 */
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import type { FlagDoc, HelpDoc } from "effect/cli/HelpDoc"
import * as Effect from "effect/Effect"
import { Failure } from "./Failure.ts"
import type { OutputShape } from "./Output.ts"
import { terminalOf } from "./ProgressLine.ts"

export const presenter = (output: OutputShape): CliOutput.Presenter => ({
  present: (event) =>
    Effect.sync(() => {
      switch (event._tag) {
        case "Version": {
          const { name, version } = event
          process.stdout.write(output.json ? `${JSON.stringify({ name, version })}\n` : `${name} ${version}\n`)
          return
        }
        case "Help": {
          const toStdout = event.reason === "Requested" && !output.json
          const stream = toStdout ? process.stdout : process.stderr
          const colors = stream.isTTY === true && terminalOf(process.env, undefined).color
          stream.write(`${CliOutput.defaultFormatter({ colors }).formatHelpDoc(plain(event.helpDoc))}\n`)
          return
        }
        case "InvalidInvocation":
          return // a Failure tells it: see `usageFailure`
      }
    })
})

/** A toggle's value, which nobody writes, says nothing to a reader. */
const plain = (doc: HelpDoc): HelpDoc => {
  const relabel = (flag: FlagDoc): FlagDoc => flag.type === "[=boolean]" ? { ...flag, type: "boolean" } : flag
  return { ...doc, flags: doc.flags.map(relabel), globalFlags: (doc.globalFlags ?? []).map(relabel) }
}

/** The first of the errors that parsing found, as the sentence that the command ends with. */
export const usageFailure = (error: CliError.ShowHelp): Failure => {
  const [first] = error.errors
  const command = error.commandPath.join(" ")
  if (first === undefined) {
    return new Failure({ tag: "InvalidArgument", message: `a command is needed; see ${command} --help`, code: 1 })
  }
  const [sentence = ""] = first.message.replace(". Expected", "; expected").split("\n")
  const meant = "suggestions" in first && first.suggestions.length > 0
    ? `; did you mean ${first.suggestions.join(" or ")}?`
    : ""
  return new Failure({
    tag: first._tag,
    message: `${sentence.charAt(0).toLowerCase()}${sentence.slice(1)}${meant || `; see ${command} --help`}`,
    code: 1
  })
}
