/**
 * Where a command's words go. Results and events go to stdout, everything else to stderr; under `--json` stdout carries
 * one JSON object a line and nothing else. A reader that is slow or has gone away is not an error, and nothing waits for
 * it but {@link flushed}: the process may hold a guest.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Observation } from "../Observation.ts"
import { type Failure, toObject, usage } from "./Failure.ts"
import { render, terminalOf } from "./ProgressLine.ts"

export interface OutputShape {
  readonly json: boolean
  /** A result or an event: the object under `--json`, else `human`, where there is something to say. */
  readonly emit: (object: unknown, human?: string) => Effect.Effect<void>
  /** Beside the results, on stderr; under `--json` as an object, too. */
  readonly note: (text: string) => Effect.Effect<void>
  /** The one line that says how far a long work is; only on a terminal, replaced by the next. */
  readonly progress: ((text: string) => Effect.Effect<void>) | undefined
  /** The same, of a migration; `before` is an earlier observation. Only on a terminal. */
  readonly show: ((before: Observation | undefined, now: Observation) => Effect.Effect<void>) | undefined
  readonly fail: (failure: Failure) => Effect.Effect<void>
}

/** Whether `--json` was given; known before parsing, since usage errors follow it too. */
export const wantsJson = (args: ReadonlyArray<string>): boolean => {
  const end = args.indexOf("--")
  return (end < 0 ? args : args.slice(0, end)).some((argument) => /^--json(=(true|yes|on|1))?$/.test(argument))
}

// Node's own standard streams forget their errors, so they are remembered here.
let broken: NodeJS.ErrnoException | undefined

/** False once nobody takes what is written to stdout any more. */
export const isRead = (): boolean => broken === undefined

/** A result that could not be written is none; a reader that had enough of it is fine. */
export const lostResult = (): Failure | undefined =>
  broken === undefined || broken.code === "EPIPE"
    ? undefined
    : usage(`cannot write to stdout (${broken.code ?? broken.message}); give it a place with room`)

const ignoreLostReaders = () => {
  process.stdout.on("error", (error) => {
    broken ??= error
  })
  process.stderr.on("error", () => {})
}

/** How long the last words may take to be read before the process ends without them. Milliseconds. */
const LAST_WORDS_MILLIS = 2_000

/** Calls `next` once everything written so far has been taken by the reader, if there is one. */
export const flushed = (next: () => void): void => {
  const streams = [process.stdout, process.stderr].filter((stream) =>
    stream.writableLength > 0 && stream.errored === null
  )
  const deadline = setTimeout(next, LAST_WORDS_MILLIS)
  let left = streams.length
  const oneLess = () => {
    if (--left > 0) return
    clearTimeout(deadline)
    next()
  }
  if (left === 0) oneLess()
  else for (const stream of streams) stream.write("", oneLess)
}

export const make = (json: boolean): OutputShape => {
  ignoreLostReaders()
  let lineIsOpen = false
  const toStderr = (text: string) => {
    process.stderr.write(`${lineIsOpen ? "\r\x1b[K" : ""}${text}\n`)
    lineIsOpen = false
  }
  const toStdout = (text: string) => {
    if (lineIsOpen) process.stderr.write("\r\x1b[K")
    lineIsOpen = false
    process.stdout.write(`${text}\n`)
  }
  const terminal = () => terminalOf(process.env, process.stderr.columns)
  const line = (text: string) => {
    process.stderr.write(`\r\x1b[K${text}`)
    lineIsOpen = true
  }
  const onTerminal = !json && process.stderr.isTTY === true
  return {
    json,
    emit: (object, human) =>
      Effect.sync(() => {
        if (json) toStdout(JSON.stringify(object))
        else if (human !== undefined) toStdout(human)
      }),
    note: (text) => Effect.sync(() => toStderr(json ? JSON.stringify({ note: text }) : text)),
    progress: onTerminal ? (text) => Effect.sync(() => line(text.slice(0, terminal().columns - 1))) : undefined,
    show: onTerminal ? (before, now) => Effect.sync(() => line(render(before, now, terminal()))) : undefined,
    fail: (failure) =>
      Effect.sync(() => {
        if (failure.message === "") return
        toStderr(json ? JSON.stringify({ error: toObject(failure) }) : `postcopy: ${failure.message}`)
      })
  }
}

export const Output: Context.Reference<OutputShape> = Context.Reference("postcopy/cli/Output", {
  defaultValue: () => make(false)
})
