/**
 * Processes of a benchmark: started, listened to line by line, ended by their pid, and what the kernel says they used.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { createInterface } from "node:readline"

export interface Running {
  readonly pid: number
  readonly child: ChildProcess
  /** The first line of stdout, as JSON, that satisfies it. Fails when the process ends before. */
  readonly line: (satisfies: (line: any) => boolean) => Promise<any>
  readonly ended: Promise<number | null>
  /** Ends it, if it has not ended, and waits. */
  readonly kill: () => Promise<void>
}

const alive = new Set<ChildProcess>()
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL")
})

export const start = (file: string, args: ReadonlyArray<string>, env: Record<string, string> = {}): Running => {
  const child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] })
  alive.add(child)
  child.stdin!.on("error", () => {}) // it may have ended before it was told everything
  const lines: Array<any> = []
  const waiting = new Set<() => void>()
  let stderr = ""
  let over = false
  const look = () => {
    for (const each of waiting) each()
  }
  createInterface({ input: child.stdout! }).on("line", (line) => {
    lines.push(JSON.parse(line))
    look()
  })
  child.stderr!.on("data", (chunk: Buffer) => stderr += chunk.toString())
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", reject)
    child.on("close", (code) => {
      alive.delete(child)
      over = true
      look()
      resolve(code)
    })
  })
  return {
    pid: child.pid!,
    child,
    ended,
    line: (satisfies) =>
      new Promise((resolve, reject) => {
        const each = () => {
          const found = lines.find(satisfies)
          if (found === undefined && !over) return
          waiting.delete(each)
          if (found !== undefined) resolve(found)
          else reject(new Error(`${file} ${args.join(" ")} ended too early: ${stderr}`))
        }
        waiting.add(each)
        each()
      }),
    kill: async () => {
      if (!over) child.kill("SIGKILL")
      await ended
    }
  }
}

const TICKS = 100

export interface Usage {
  /** Seconds of CPU, user and system. */
  readonly cpu: number
  /** The most that was ever resident, KiB. */
  readonly peakKiB: number
}

/** What a process has used until now; `undefined` when it is gone. */
export const usage = (pid: number): Usage | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const peak = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
    if (peak === null) return undefined
    return { cpu: (Number(fields[11]) + Number(fields[12])) / TICKS, peakKiB: Number(peak[1]) }
  } catch {
    return undefined
  }
}

/** Looks at a process until it is gone or the function returned is called, which gives the last look. */
export const follow = (pid: number): () => Usage => {
  let last: Usage = { cpu: 0, peakKiB: 0 }
  const look = () => {
    last = usage(pid) ?? last
  }
  const timer = setInterval(look, 10)
  look()
  return () => {
    clearInterval(timer)
    look()
    return last
  }
}

export const childrenOf = (pid: number): ReadonlyArray<number> =>
  readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter((word) => word !== "").map(Number)
  )
