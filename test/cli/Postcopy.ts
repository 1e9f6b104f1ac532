/**
 * The command line as a user has it: `bin/postcopy.js` in a child process, its lines as they come, its exit code. Nothing
 * sleeps; everything waits for a line or for the end.
 */
import { type ChildProcess, execFileSync, spawn, type StdioOptions } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"

export const entry = fileURLToPath(new URL("../../bin/postcopy.js", import.meta.url))

/** A Node on PATH that is too old for the command line; most hosts have none. */
export const oldNode = (() => {
  try {
    const path = execFileSync("/bin/sh", ["-c", "PATH=/usr/local/bin:/usr/bin:/bin command -v node"], {
      encoding: "utf8"
    }).trim()
    const major = Number(execFileSync(path, ["-p", "process.versions.node.split('.')[0]"], { encoding: "utf8" }))
    return major < 22 ? path : undefined
  } catch {
    return undefined
  }
})()

export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
  /** The lines of stdout as JSON. */
  readonly objects: ReadonlyArray<any>
  /** The error object of `--json`, if there is one. */
  readonly error: any
}

export interface Running {
  readonly child: ChildProcess
  /** The first line of stdout that is such an event; fails when the process ends before it. */
  readonly event: (name: string) => Promise<any>
  readonly ended: Promise<Ended>
}

export interface Options {
  readonly cwd?: string
  readonly env?: Record<string, string>
  readonly input?: Uint8Array | string
  /** Descriptors from 3 on. */
  readonly descriptors?: ReadonlyArray<number>
  /** What is started instead of the file itself. */
  readonly command?: readonly [string, ...Array<string>]
}

export const start = (args: ReadonlyArray<string>, options: Options = {}): Running => {
  const [file, ...before] = options.command ?? [entry]
  const stdio: StdioOptions = [
    options.input === undefined ? "ignore" : "pipe",
    "pipe",
    "pipe",
    ...options.descriptors ?? []
  ]
  const child = spawn(file, [...before, ...args], { cwd: options.cwd, env: { ...process.env, ...options.env }, stdio })
  let stdout = ""
  let stderr = ""
  const events: Array<any> = []
  const waiting = new Set<() => void>()
  let end: Ended | undefined
  createInterface({ input: child.stdout! }).on("line", (line) => {
    if (line.startsWith("{")) events.push(JSON.parse(line))
    for (const look of waiting) look()
  })
  child.stdout!.on("data", (chunk: Buffer) => stdout += chunk.toString())
  child.stderr!.on("data", (chunk: Buffer) => stderr += chunk.toString())
  child.stdin?.on("error", () => {}) // it may end before it has read everything
  child.stdin?.end(options.input)
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code, signal) => {
      const parsed = (text: string) =>
        text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line))
      const error = parsed(stderr).findLast((object) => "error" in object)?.error
      end = {
        code,
        signal,
        stdout,
        stderr,
        get objects() {
          return parsed(stdout)
        },
        error
      }
      resolve(end)
      for (const look of waiting) look()
    })
  })
  onTestFinished(() => void child.kill("SIGKILL"))
  const event = (name: string) =>
    new Promise<any>((resolve, reject) => {
      const look = () => {
        const found = events.find((object) => object.event === name)
        if (found === undefined && end === undefined) return
        waiting.delete(look)
        if (found !== undefined) resolve(found)
        else reject(new Error(`ended with ${end!.code ?? end!.signal} before "${name}": ${stdout}${stderr}`))
      }
      waiting.add(look)
      look()
    })
  return { child, event, ended }
}

/** Runs a command to its end. */
export const postcopy = (...args: ReadonlyArray<string>): Promise<Ended> => start(args).ended

/** A directory for sockets, removed after the test. */
export const directory = (): string => {
  const path = mkdtempSync(join(tmpdir(), "postcopy-test-"))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}
