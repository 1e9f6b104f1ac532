/**
 * Lets a process end while one of its vCPU threads waits in a page fault. Such a thread cannot be joined, and every
 * ordinary way out (`process.exit`, an uncaught error, the end of the event loop) joins it, for ever. While a vCPU thread
 * lives, the process therefore ends by the addon's `_exit`, after every other exit handler and after its output.
 */
import { writeSync } from "node:fs"
import { inspect } from "node:util"
import * as Binding from "../native/Binding.ts"

let installed = false
let living = 0
let uncaught: { readonly error: unknown } | undefined

/**
 * For a command that hosts guests: the handlers, and nothing of its output is lost. On pipes Node keeps what does not fit
 * and drops it when the process ends at once, so stdout and stderr become blocking. Again and again is once.
 */
export const install = (): void => {
  guard()
  for (const stream of [process.stdout, process.stderr]) {
    const handle = (stream as { readonly _handle?: { readonly setBlocking?: (on: boolean) => void } })._handle
    handle?.setBlocking?.(true)
  }
}

/** For a library: only the handlers, its caller may count on streams that do not block. */
const guard = () => {
  if (installed) return
  installed = true
  process.on("exit", onExit)
  process.on("uncaughtExceptionMonitor", onUncaught)
}

/** Counts a vCPU thread as living until the returned function is called. */
export const enter = (): () => void => {
  guard()
  living++
  let left = false
  return () => {
    if (!left) living--
    left = true
  }
}

const onUncaught = (error: unknown) => {
  const handled = process.listenerCount("uncaughtException") > 0 || process.hasUncaughtExceptionCaptureCallback()
  // Node prints the error only after the exit handlers, which `_exit` does not let it come to.
  if (!handled) uncaught = { error }
}

const onExit = (code: number) => {
  const addon = living > 0 ? Binding.load() : undefined
  if (addon === undefined) return
  // The handlers after this one would not get their turn: they clean up sockets and files.
  const listeners = process.listeners("exit")
  for (const later of listeners.slice(listeners.indexOf(onExit) + 1)) {
    try {
      later.call(process, code)
    } catch (error) {
      print(error)
    }
  }
  if (uncaught !== undefined) print(uncaught.error)
  addon.exitNow(Number(process.exitCode ?? code))
}

const print = (error: unknown) => {
  try {
    writeSync(2, `${inspect(error)}\n`)
  } catch {
    // Nobody reads it.
  }
}
