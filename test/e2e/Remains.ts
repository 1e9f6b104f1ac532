/** What is to be seen of a process from outside: its state, what it has open, what it came to say. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import type * as Host from "./Host.ts"

/** The letter of /proc/PID/stat, or "gone". */
export const stateOf = (pid: number): string => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3)
  } catch {
    return "gone"
  }
}

export const reached = async (pid: number, ...states: ReadonlyArray<string>): Promise<void> => {
  while (!states.includes(stateOf(pid))) await new Promise(setImmediate)
}

/** False when it has gone: the daemon's work may be done when the source has the EOC. */
export const send = (pid: number, signal: NodeJS.Signals): boolean => {
  if (["gone", "Z"].includes(stateOf(pid))) return false
  return process.kill(pid, signal)
}

/** What a process has open, without its numbers. */
export const open = (pid: number): ReadonlyArray<string> =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\[\d+\]/, "")]
    } catch {
      return [] // the descriptor of the reading itself
    }
  }).sort()

/** Waits until it has no more open than before: a control connection of the last answer may still be there. */
export const openAgain = async (pid: number, before: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  while (open(pid).length > before.length) await new Promise(setImmediate)
  return open(pid)
}

/** What the destination comes to say: complete, or failed with the guest's whereabouts. */
export const outcomeOf = async (to: Host.Running): Promise<string> => {
  const { error, event } = await to.line(({ event }) => event === "completed" || event === "failed")
  return event === "completed" ? "completed" : String(error.guest ?? "none")
}

/** Ends a destination that has not ended by itself, as one does that has failed before the switchover. */
export const endDestination = async (to: Host.Guest): Promise<void> => {
  const ended = await Promise.race([to.ended, undefined])
  if (ended === undefined) await Promise.race([to.ended, to.quit().catch(() => undefined)])
  await to.ended
}
