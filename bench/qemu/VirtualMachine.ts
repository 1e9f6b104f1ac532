/**
 * A QEMU with the test guest for a benchmark: a socket that tells each tick with its time (CLOCK_MONOTONIC), a monitor,
 * and the faults of post-copy as QEMU's own trace has them.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import * as net from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Monitor from "./Monitor.ts"

const QEMU = "qemu-system-x86_64"
const alive = new Set<ChildProcess>()
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL")
})

/** The guest's disk: qcow2, so that QEMU can keep snapshots of its own in it. */
export const disk = (directory: string, name: string): string => {
  const object = join(directory, "guest.o")
  const raw = join(directory, "guest.bin")
  const path = join(directory, `${name}.qcow2`)
  const source = fileURLToPath(new URL("../../test/qemu/guest.S", import.meta.url))
  for (
    const [tool, ...args] of [
      ["as", "--32", "-o", object, source],
      ["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00", "-o", raw, object]
    ] as const
  ) {
    const { error, status, stderr } = spawnSync(tool, args, { encoding: "utf8" })
    if (status !== 0) throw new Error(`${tool} failed on test/qemu/guest.S: ${error?.message ?? stderr}`)
  }
  const bytes = Buffer.alloc(2 ** 20)
  readFileSync(raw).copy(bytes)
  writeFileSync(raw, bytes)
  const made = spawnSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, path], { encoding: "utf8" })
  if (made.status !== 0) {
    throw new Error(`qemu-img is needed (Debian: qemu-utils): ${made.error?.message ?? made.stderr}`)
  }
  return path
}

export interface VirtualMachine {
  readonly pid: number
  readonly qmp: string
  /** Nanoseconds of CLOCK_MONOTONIC at which ticks came. */
  readonly ticks: ReadonlyArray<bigint>
  readonly passes: () => number
  readonly bad: () => boolean
  readonly execute: (command: string, args?: object) => Promise<any>
  /** Waits until it is so; fails when that takes too long or the machine has ended. */
  readonly until: (what: string, so: () => Promise<boolean> | boolean) => Promise<void>
  /** Fault to placed, microseconds, by QEMU's trace. */
  readonly faults: () => ReadonlyArray<number>
  readonly kill: () => Promise<void>
}

let serial = 0

export const start = async (
  directory: string,
  options: { readonly mebibytes: number; readonly disk: string; readonly args?: ReadonlyArray<string> }
): Promise<VirtualMachine> => {
  const at = (suffix: string) => join(directory, `vm${serial}.${suffix}`)
  serial++
  const [qmp, own, com1, com2, log] = ["qmp", "own", "com1", "com2", "log"].map(at) as [
    string,
    string,
    string,
    string,
    string
  ]
  const ticks: Array<bigint> = []
  let console = ""
  const servers = await Promise.all(
    [[com1, (bytes: Buffer) => {
      console += bytes.toString("latin1")
    }], [com2, (bytes: Buffer) => {
      const now = process.hrtime.bigint()
      for (let i = 0; i < bytes.length; i++) ticks.push(now)
    }]].map(([path, onData]) =>
      new Promise<net.Server>((resolve) => {
        const server = net.createServer((socket) =>
          socket.on("data", onData as (bytes: Buffer) => void).on("error", () => {})
        )
        server.listen(path as string, () => resolve(server))
      })
    )
  )
  const child = spawn(QEMU, [
    "-accel",
    "tcg",
    "-machine",
    "pc",
    "-m",
    `${options.mebibytes}`,
    "-display",
    "none",
    "-nodefaults",
    "-no-user-config",
    "-drive",
    `file=${options.disk},format=qcow2,if=ide,file.locking=off`,
    "-chardev",
    `socket,id=c1,path=${com1}`,
    "-serial",
    "chardev:c1",
    "-chardev",
    `socket,id=c2,path=${com2}`,
    "-serial",
    "chardev:c2",
    "-qmp",
    `unix:${qmp},server=on,wait=off`,
    "-qmp",
    `unix:${own},server=on,wait=off`,
    "-trace",
    "enable=postcopy_page_req_add",
    "-trace",
    "enable=postcopy_page_req_del",
    "-D",
    log,
    "-msg",
    "timestamp=on",
    ...options.args ?? []
  ], { stdio: ["ignore", "ignore", "inherit"] })
  alive.add(child)
  const exited = new Promise<void>((resolve) => child.on("exit", () => resolve()))
  const monitor = await Monitor.connect(child, own)
  return {
    pid: child.pid!,
    qmp,
    ticks,
    passes: () => console.match(/P[0-9A-F]{8} T/g)?.length ?? 0,
    bad: () => console.includes("BAD"),
    execute: monitor.ask,
    until: (what, so) => Monitor.until(what, so, { of: child }),
    faults: () => {
      const asked = new Map<string, number>()
      const found: Array<number> = []
      for (const line of existsSync(log) ? readFileSync(log, "utf8").split("\n") : []) {
        const match = /@(\d+\.\d+):postcopy_page_req_(add|del) .*?(0x[0-9a-f]+)/.exec(line)
        if (match === null) continue
        const [, time, what, page] = match as unknown as [string, string, string, string]
        if (what === "add") asked.set(page, Number(time))
        else if (asked.has(page)) found.push((Number(time) - asked.get(page)!) * 1e6)
      }
      return found
    },
    kill: async () => {
      child.kill("SIGKILL")
      await exited
      alive.delete(child)
      monitor.close()
      for (const server of servers) server.close()
    }
  }
}
