/**
 * Loaded into the processes of a test before anything else (`NODE_OPTIONS=--import`): stops one of them, by SIGSTOP to
 * itself, at one arrow of the protocol's sequence, when the bytes of that arrow are about to be written or have just been
 * read. It says so on stderr first. Which process and which arrow is in `POSTCOPY_TEST_ARROW`.
 */
import { writeSync } from "node:fs"
import { createRequire } from "node:module"
import { isMainThread } from "node:worker_threads"
import { Answer, Fetch } from "../../src/services/PageExchange.ts"
import { type Arrow, arrows, type Process } from "./Arrows.ts"

const processOf = (args: ReadonlyArray<string>): Process | undefined => {
  if (args[1]?.endsWith("/daemon.ts")) return "daemon"
  return args.includes("run") ? "source" : args.includes("receive") ? "destination" : undefined
}

const arrow = arrows.find(({ name }) => name === process.env["POSTCOPY_TEST_ARROW"])

if (isMainThread && arrow !== undefined && processOf(process.argv) === arrow.at) breakAt(arrow)

function breakAt({ at, matches, when }: Arrow): void {
  const addon = createRequire(import.meta.url)("userfaultfd-napi") as Record<string, (...args: Array<any>) => any>
  const seen: Array<string> = []
  let done = false
  // Before it has the link, a process only rehearses: the same messages, with itself.
  let linked = false
  for (
    const call of { source: ["connectUnix", "connectTcp"], destination: ["accept"], daemon: ["receiveDescriptors"] }[at]
  ) {
    const original = addon[call]!
    addon[call] = (...args) => {
      const result = original(...args)
      if (result !== null && (at !== "daemon" || result.bytes > 0)) linked = true
      return result
    }
  }
  /** `bytes` are about to be written, were read, or carry descriptors. */
  const look = (what: Arrow["when"], bytes: Uint8Array) => {
    if (done || !linked || what !== when || !matches(bytes, seen)) return
    done = true
    writeSync(2, `arrow ${process.pid}\n`)
    // To the main thread, which this is: it does not get past this call before it is continued.
    process.kill(process.pid, "SIGSTOP")
  }
  for (const [call, what] of [["write", "writing"], ["sendDescriptors", "handing over"]] as const) {
    const original = addon[call]!
    addon[call] = (...args) => {
      const [, from, start, length] = args as [unknown, Uint8Array, number, number]
      const bytes = call === "write" ? from.subarray(start, start + length) : from
      look(what, bytes)
      const result = original(...args)
      // What was said before tells the first page from the framing.
      if (linked && call === "write" && result > 0) seen.push(String.fromCharCode(...bytes.subarray(0, 1)) + result)
      return result
    }
  }
  // What these calls have read and do not deal with themselves.
  const fetch = addon["fetchPages"]!
  addon["fetchPages"] = (...args) => {
    const result = fetch(...args) as number
    const [, , plan, , , buffer] = args as [unknown, unknown, Float64Array, unknown, unknown, Uint8Array]
    const at = plan[Fetch.readAt]!
    if (result >= 0) look("reading", buffer.subarray(at, at + plan[Fetch.unhandled]!))
    return result
  }
  const answer = addon["answerRequests"]!
  addon["answerRequests"] = (...args) => {
    const result = answer(...args) as number
    const [, , plan, , input] = args as [unknown, unknown, Float64Array, unknown, Uint8Array]
    if (result >= 0) look("reading", input.subarray(0, plan[Answer.unhandled]))
    return result
  }
  const read = addon["read"]!
  addon["read"] = (...args) => {
    const n = read(...args) as number
    if (n > 0) look("reading", (args[1] as Uint8Array).subarray(args[2] as number, (args[2] as number) + n))
    return n
  }
}
