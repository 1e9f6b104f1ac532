/**
 * Two hosts on one machine: `bin/postcopy.js` in processes of its own, its events as they come, its exit code. Nothing
 * sleeps; everything waits for a line, an answer or an end.
 *
 * The umem daemon inherits its parent's stderr, so `ended`, which waits until that stream is closed on every side, also
 * waits for the daemon: a test that gets there has shown that no process is left.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { type ChildProcess, spawn, type StdioOptions } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import type { Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert, onTestFinished } from "vitest"
import { askOnce } from "../../src/cli/ControlClient.ts"
import type { Failure } from "../../src/cli/Failure.ts"
import type { Report, Status } from "../../src/Report.ts"

export const entry = fileURLToPath(new URL("../../bin/postcopy.js", import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  /** The lines of stdout as JSON. */
  readonly lines: ReadonlyArray<any>
  /** The first of them: what `call` and `status` answer. */
  readonly answer: any
  /** The last `error` object of stderr; `undefined` if there is none. */
  readonly error: { readonly tag: string; readonly message: string } | undefined
  readonly stderr: string
}

export interface Running {
  readonly child: ChildProcess
  readonly pid: number
  /** The first event of this name; fails when the process ends before it. */
  readonly event: (name: string) => Promise<any>
  /** The first line of stdout that satisfies it; fails when the process ends before it. */
  readonly line: (satisfies: (line: any) => boolean) => Promise<any>
  readonly ended: Promise<Ended>
  /** The test's end of a descriptor given as "pipe", a socket. */
  readonly socket: (fd: number) => Socket
}

export interface Options {
  readonly cwd?: string
  readonly env?: Record<string, string>
  /** Descriptors from 3 on: numbers of this process's, or "pipe" for a socketpair's other end. */
  readonly descriptors?: ReadonlyArray<number | "pipe">
}

/** Starts a command with `--json`. */
export const start = (args: ReadonlyArray<string>, options: Options = {}): Running => {
  const stdio: StdioOptions = ["ignore", "pipe", "pipe", ...options.descriptors ?? []]
  const child = spawn(entry, [...args, "--json"], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio
  })
  const lines: Array<any> = []
  let stderr = ""
  let end: Ended | undefined
  const waiting = new Set<() => void>()
  const look = () => {
    for (const each of waiting) each()
  }
  createInterface({ input: child.stdout! }).on("line", (line) => {
    lines.push(JSON.parse(line)) // with --json there is nothing else there
    look()
  })
  child.stderr!.on("data", (chunk: Buffer) => stderr += chunk.toString())
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code, signal) => {
      const errors = stderr.split("\n").filter((line) => line.startsWith("{\"error\"")).map((line) => JSON.parse(line))
      end = { code, signal, lines, answer: lines[0], error: errors.at(-1)?.error, stderr }
      resolve(end)
      look()
    })
  })
  onTestFinished(async () => {
    for (const pid of [...childrenOf(child.pid!), child.pid!]) {
      try {
        process.kill(pid, "SIGKILL")
      } catch {
        // ended already, as it should have
      }
    }
    await ended
  })
  const line: Running["line"] = (satisfies) =>
    new Promise((resolve, reject) => {
      const each = () => {
        const found = lines.find(satisfies)
        if (found === undefined && end === undefined) return
        waiting.delete(each)
        if (found !== undefined) resolve(found)
        else reject(new Error(`${args.join(" ")} ended with ${end!.code ?? end!.signal} too early: ${stderr}`))
      }
      waiting.add(each)
      each()
    })
  return {
    child,
    pid: child.pid!,
    line,
    event: (name) => line((object) => object.event === name),
    ended,
    socket: (fd) => child.stdio[fd] as Socket
  }
}

/** Runs a command to its end. */
export const postcopy = (...args: ReadonlyArray<string>): Promise<Ended> => start(args).ended

/** A directory for sockets and modules, removed after the test. */
export const directory = (): string => {
  const path = mkdtempSync(join(tmpdir(), "postcopy-e2e-"))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Descendants of a process of ours. */
export const childrenOf = (pid: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8")
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      if (Number(parent) === pid && state !== "Z") found.push(Number(name), ...childrenOf(Number(name)))
    } catch {
      // it has ended meanwhile
    }
  }
  return found
}

/** Whether a process runs: one that has ended and whose new parent has not looked yet does not. */
export const runs = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2))
  } catch {
    return false
  }
}

/** Waits until a process has ended: whoever sees its descriptors closed is a moment early. */
export const gone = async (pid: number): Promise<void> => {
  while (runs(pid)) await new Promise((resolve) => setImmediate(resolve))
}

/** The umem daemon of a receiving process. */
export const daemonOf = (receiver: Running): number => {
  const daemons = childrenOf(receiver.pid)
  assert.lengthOf(daemons, 1)
  return daemons[0]!
}

/** What a request over the control socket came to; `code` is what the command for it exits with. */
export interface Answered<A> {
  readonly code: number
  readonly answer: A
  readonly error: Failure | undefined
}

/** Without a process for each request: the commands' own client, in this process. */
const asked = async <A>(request: Effect.Effect<A, Failure>): Promise<Answered<A>> =>
  Result.match(await Effect.runPromise(Effect.result(request)), {
    onSuccess: (answer) => ({ code: 0, answer, error: undefined }),
    onFailure: (error) => ({ code: error.code, answer: undefined as A, error })
  })

/** A guest's process and its control socket. */
export interface Guest extends Running {
  readonly control: string
  readonly call: (request: unknown) => Promise<Answered<any>>
  readonly status: () => Promise<Status>
  readonly pause: () => Promise<Answered<void>>
  readonly resume: () => Promise<Answered<void>>
  readonly cancel: () => Promise<Answered<void>>
  /** Bytes per second; null is unlimited. */
  readonly limit: (bytesPerSecond: number | null) => Promise<Answered<void>>
  /** As `migrate` does, for many migrations; {@link migrate} is the command itself. */
  readonly send: (uri: string, options?: { background?: boolean; maxBandwidth?: number }) => Promise<Answered<Report>>
  /** The first status that satisfies it. */
  readonly reaches: (satisfies: (status: Status) => boolean) => Promise<Status>
  /** Ends it with `quit` and gives its exit code. */
  readonly quit: () => Promise<number | null>
}

const guest = (running: Running, control: string): Guest => {
  const status = async () => {
    const { answer, error } = await asked(askOnce(control, (of) => of.Status()))
    if (error !== undefined) throw error
    return answer
  }
  return {
    ...running,
    control,
    call: async (request) => {
      const said = await asked(askOnce(control, (of) => of.Call({ request: JSON.stringify(request) })))
      return said.error === undefined ? { ...said, answer: JSON.parse(said.answer) } : said
    },
    status,
    pause: () => asked(askOnce(control, (of) => of.Pause())),
    resume: () => asked(askOnce(control, (of) => of.Resume())),
    cancel: () => asked(askOnce(control, (of) => of.Cancel())),
    limit: (bytesPerSecond) => asked(askOnce(control, (of) => of.SetBandwidth({ bytesPerSecond }))),
    send: (uri, { background = true, maxBandwidth } = {}) =>
      asked(
        askOnce(
          control,
          (of) => of.Migrate({ to: { _tag: "Uri", uri }, background, maxBandwidth: maxBandwidth ?? null })
        )
      ),
    reaches: async (satisfies) => {
      while (true) {
        const now = await status()
        if (satisfies(now)) return now
      }
    },
    quit: async () => {
      const { error } = await asked(askOnce(control, (of) => of.Quit()))
      // The process may end faster than it answers.
      assert.isTrue(error === undefined || error.tag === "ControlLost", JSON.stringify(error))
      return (await running.ended).code
    }
  }
}

export interface GuestOptions extends Options {
  readonly memory?: number
  readonly args?: ReadonlyArray<string>
}

const memoryArgs = ({ args = [], memory }: GuestOptions) => [
  ...(memory === undefined ? [] : ["--memory", String(memory)]),
  ...args
]

let serial = 0

/** A running guest that can be sent. */
export const source = async (dir: string, module: string, options: GuestOptions = {}): Promise<Guest> => {
  const control = join(dir, `source-${++serial}`)
  const running = guest(start(["run", module, "--control", control, ...memoryArgs(options)], options), control)
  await running.event("running")
  return running
}

/** A receiver that listens; `uri` is where. */
export const destination = async (
  dir: string,
  module: string,
  uri: string,
  options: GuestOptions = {}
): Promise<Guest & { readonly uri: string }> => {
  const control = join(dir, `destination-${++serial}`)
  const args = ["receive", module, uri, "--control", control, ...memoryArgs(options)]
  const running = guest(start(args, options), control)
  return { ...running, uri: (await running.event("listening")).uri }
}

/** Starts sending; `ended` is the command's end. */
export const migrate = (from: Guest, uri: string, args: ReadonlyArray<string> = [], options: Options = {}): Running =>
  start(["migrate", uri, "--control", from.control, ...args], options)

/** Sockets that are left in a directory. */
export const leftIn = (dir: string): ReadonlyArray<string> =>
  readdirSync(dir, { withFileTypes: true }).filter((file) => file.isSocket()).map(({ name }) => name)
