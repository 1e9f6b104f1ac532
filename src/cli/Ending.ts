/**
 * How a process of the command line ends: the one place that turns an outcome into words on stderr and an exit code.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import { Failure } from "./Failure.ts"
import * as Output from "./Output.ts"
import * as Signals from "./Signals.ts"

/** A usage error of the parser as a failure; `undefined` for whatever else. */
export type UsageOf = (error: unknown) => Failure | undefined

const failureOf = (cause: Cause.Cause<unknown>, usageOf: UsageOf): Failure => {
  if (Cause.hasInterruptsOnly(cause)) {
    return new Failure({ tag: "Interrupted", message: "interrupted", code: Signals.INTERRUPTED })
  }
  const error = Cause.squash(cause)
  if (error instanceof Failure) return error
  const usage = usageOf(error)
  if (usage !== undefined) return usage
  const what = error instanceof Error ? error.message : String(error)
  return new Failure({
    tag: "Defect",
    message: `internal error: ${what}; this is a bug of postcopy, please report it`,
    code: 70
  })
}

/** Runs a command, and ends the process with what it came to. */
export const run = (command: Effect.Effect<void, unknown>, output: Output.OutputShape, usageOf: UsageOf): void => {
  const runMain = Runtime.makeRunMain(({ fiber }) => {
    const uninstall = Signals.install(() => fiber.interruptUnsafe(fiber.id))
    fiber.addObserver((exit) => {
      const failure = Exit.isFailure(exit) ? failureOf(exit.cause, usageOf) : undefined
      if (failure !== undefined) Effect.runSync(output.fail(failure))
      Output.flushed(() => {
        uninstall()
        const lost = failure === undefined ? Output.lostResult() : undefined
        if (lost !== undefined) Effect.runSync(output.fail(lost))
        process.exit((failure ?? lost)?.code ?? 0)
      })
    })
  })
  runMain(command, { disableErrorReporting: true })
}
