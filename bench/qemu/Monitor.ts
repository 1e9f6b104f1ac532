/**
 * A QMP connection of a benchmark, and waiting for a QEMU with an end: what does not come in time, or cannot come any
 * more because QEMU ended, is an error that says so.
 */
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import * as net from "node:net"
import { createInterface } from "node:readline"

/** How long a step may take, unless said otherwise: TCG boots a guest of a GiB in some ten seconds on a quiet machine. */
const PATIENCE_MILLIS = 180_000
/** How long a QEMU may take to start, and a command to be answered. Milliseconds, generous: ten may start at once. */
const ANSWER_MILLIS = 60_000
const LOOK_MILLIS = 2

export interface Monitor {
  readonly ask: (command: string, args?: object) => Promise<any>
  readonly close: () => void
}

/** Polls until it is so. Fails when that takes too long, or when the process has ended without it. */
export const until = async (
  what: string,
  so: () => Promise<boolean> | boolean,
  { millis = PATIENCE_MILLIS, of }: { readonly millis?: number; readonly of?: ChildProcess } = {}
): Promise<void> => {
  const since = performance.now()
  while (!(await so())) {
    if (of !== undefined && (of.exitCode ?? of.signalCode) !== null) {
      throw new Error(`QEMU (pid ${of.pid}) ended with ${of.exitCode ?? of.signalCode} before: ${what}`)
    }
    if (performance.now() - since > millis) throw new Error(`not within ${millis / 1000} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLIS))
  }
}

/** The connection, or nothing: the socket is not there yet, or is there and QEMU does not listen on it yet. */
const connected = async (path: string): Promise<net.Socket | undefined> => {
  const socket = net.connect(path)
  const ready = await once(socket, "connect").then(() => true, () => false)
  return ready ? socket : undefined
}

/** Connects to a QEMU that is being started, and negotiates. */
export const connect = async (child: ChildProcess, path: string): Promise<Monitor> => {
  let socket: net.Socket | undefined
  await until(
    `its monitor answers at ${path}`,
    async () => (socket = await connected(path)) !== undefined,
    { millis: ANSWER_MILLIS, of: child }
  )
  interface Waiting {
    readonly resolve: (answer: any) => void
    readonly reject: (error: Error) => void
    readonly timer: NodeJS.Timeout
    readonly command: string
  }
  const waiting: Array<Waiting> = []
  const over = () => {
    for (const { command, reject, timer } of waiting.splice(0)) {
      clearTimeout(timer)
      reject(new Error(`QEMU (pid ${child.pid}) closed its monitor before it answered ${command}`))
    }
  }
  // A QEMU that is killed resets the connection: readline tells its input's errors as its own.
  createInterface({ input: socket! }).on("error", () => {}).on("line", (line) => {
    const message = JSON.parse(line)
    if (!("return" in message) && !("error" in message)) return
    const one = waiting.shift()
    if (one === undefined) return
    clearTimeout(one.timer)
    if ("error" in message) one.reject(new Error(`${one.command}: ${message.error.desc}`))
    else one.resolve(message.return)
  })
  socket!.on("error", () => {}).on("close", over)
  const ask = (command: string, args: object = {}) =>
    new Promise<any>((resolve, reject) => {
      if (socket!.destroyed) return reject(new Error(`QEMU (pid ${child.pid}) has closed its monitor: ${command}`))
      const timer = setTimeout(
        () => reject(new Error(`QEMU (pid ${child.pid}) has not answered ${command} for ${ANSWER_MILLIS / 1000} s`)),
        ANSWER_MILLIS
      )
      waiting.push({ resolve, reject, timer, command })
      socket!.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    })
  await ask("qmp_capabilities")
  return { ask, close: () => socket!.destroy() }
}
