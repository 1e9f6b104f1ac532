/**
 * A real QEMU with the guest of `guest.S`: every page it owns is verified pass by pass (COM1), and each tick of a 1 kHz
 * timer is one byte (COM2). Both ports are sockets of the test, so that everything waits for what the guest says and
 * nothing for time.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { accessSync, constants, readFileSync, writeFileSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"

const QEMU = "qemu-system-x86_64"

const has = (program: string): boolean => {
  try {
    execFileSync("/bin/sh", ["-c", `command -v ${program}`])
    return true
  } catch {
    return false
  }
}

const lacking = [QEMU, "as", "ld"].filter((program) => !has(program))

/** Why the tests of this folder cannot run here; `undefined` where they can. */
export const missing: string | undefined = lacking.length === 0
  ? undefined
  : `${lacking.join(", ")} not installed (Debian: qemu-system-x86, binutils)`

/** Firmware reads nothing from a disk on AHCI that has no whole cylinder. */
const DISK_BYTES = 2 ** 20

const HUGE_PAGES = "/proc/sys/vm/nr_hugepages"

/** How many pages of 2 MiB the host keeps; `undefined` where this process may not change that. */
export const hugePages: number | undefined = (() => {
  try {
    accessSync(HUGE_PAGES, constants.W_OK)
    return Number(readFileSync(HUGE_PAGES, "utf8"))
  } catch {
    return undefined
  }
})()

/** Keeps so many more until disposed of; throws where the host has none left. */
export const reserveHugePages = (more: number): Disposable => {
  const before = Number(readFileSync(HUGE_PAGES, "utf8"))
  writeFileSync(HUGE_PAGES, String(before + more))
  const got = Number(readFileSync(HUGE_PAGES, "utf8"))
  const back = () => writeFileSync(HUGE_PAGES, String(before))
  if (got < before + more) {
    back()
    throw new Error(`the host has ${got - before} pages of 2 MiB left, not ${more}`)
  }
  return { [Symbol.dispose]: back }
}

/** What is tested, and why it is not. */
export const title = (what: string): string => missing === undefined ? what : `${what} (${missing})`

/** An emulated machine takes what the host leaves it. Milliseconds. */
export const TIMEOUT = 180_000

let assembled: Buffer | undefined

/** The guest's disk. It owns `[start, start + count)` MiB, all it has when `count` is 0. */
const disk = (directory: string, count: number, delay: number): string => {
  if (assembled === undefined) {
    const source = fileURLToPath(new URL("./guest.S", import.meta.url))
    const object = join(directory, "guest.o")
    const image = join(directory, "guest.bin")
    execFileSync("as", ["--32", "-o", object, source])
    execFileSync("ld", ["-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00", "-o", image, object])
    assembled = readFileSync(image)
  }
  const bytes = Buffer.alloc(DISK_BYTES)
  assembled.copy(bytes)
  const at = bytes.indexOf("CFG1")
  bytes.writeUInt32LE(2, at + 4)
  bytes.writeUInt32LE(count, at + 8)
  bytes.writeUInt32LE(delay, at + 12)
  bytes.writeUInt32LE(1, at + 16)
  const path = join(directory, `guest-${count}-${delay}.img`)
  writeFileSync(path, bytes)
  return path
}

/** One pass of the guest over its pages. */
export interface Pass {
  readonly number: number
  readonly ticks: number
  /** Pages that were not as the guest had left them. */
  readonly bad: number
}

export interface Options {
  /** `pc` (default) or `q35`. */
  readonly machine?: string
  readonly memoryMiB: number
  /** MiB that the guest verifies; 0 = all of it but the last. */
  readonly countMiB?: number
  /** Spin loops a page. */
  readonly delay?: number
  readonly vcpus?: number
  /** More arguments; default devices unless they hold `-nodefaults`. */
  readonly args?: ReadonlyArray<string>
  readonly incoming?: string
  /** What the machine boots from; the disk of `guest.S` unless it is given. */
  readonly boot?: ReadonlyArray<string>
  /** QEMU's descriptors from 3 on: numbers of this process's. */
  readonly descriptors?: ReadonlyArray<number>
}

export interface Machine {
  readonly name: string
  readonly qmp: string
  readonly child: ChildProcess
  readonly passes: ReadonlyArray<Pass>
  /** Low bytes of the tick counter, in order. */
  readonly ticks: ReadonlyArray<number>
  /** When each tick came: milliseconds of `performance.now()`. */
  readonly tickedAt: ReadonlyArray<number>
  readonly console: () => string
  /** What QEMU said about itself. */
  readonly stderr: () => string
  /** Waits until it holds; fails when QEMU ends before. */
  readonly until: (what: string, holds: () => boolean) => Promise<void>
  /** Runs a command of the monitor; fails with QEMU's sentence when it is refused. */
  readonly execute: (command: string, args?: object) => Promise<any>
  readonly exited: Promise<number | null>
  readonly kill: () => Promise<void>
}

const listener = (path: string, onData: (bytes: Buffer) => void): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on("data", onData).on("error", () => {}))
    server.once("error", reject).listen(path, () => resolve(server))
    onTestFinished(() => void server.close())
  })

const connected = (path: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    import("node:net").then(({ connect }) => {
      const socket = connect(path, () => resolve(socket))
      socket.once("error", reject)
    })
  })

/** One command, on the test's own monitor: each serves one client at a time, and the other is the program's under test. */
const monitorCommand = async (path: string, command: string, args: object = {}): Promise<any> => {
  const socket = await connected(path)
  let text = ""
  try {
    return await new Promise((resolve, reject) => {
      socket.on("error", reject).on("close", () => reject(new Error(`the monitor closed during ${command}`)))
      socket.on("data", (bytes) => {
        text += bytes.toString()
        const lines = text.split("\n")
        text = lines.pop()!
        for (const line of lines) {
          const message = JSON.parse(line)
          if ("QMP" in message) socket.write(`{"execute":"qmp_capabilities","id":0}\n`)
          else if (message.id === 0) socket.write(`${JSON.stringify({ execute: command, arguments: args, id: 1 })}\n`)
          else if (message.id === 1) {
            if ("error" in message) reject(new Error(`${command}: ${message.error.desc}`))
            else resolve(message.return)
          }
        }
      })
    })
  } finally {
    socket.destroy()
  }
}

let count = 0

/** Starts a QEMU in a directory of the test's. It is killed when the test ends. */
export const start = async (directory: string, options: Options): Promise<Machine> => {
  const { args = ["-nodefaults"], countMiB = 0, delay = 0, incoming, machine = "pc", memoryMiB, vcpus = 1 } = options
  const boot = options.boot ?? [
    "-drive",
    `file=${disk(directory, countMiB, delay)},format=raw,if=none,id=disk0,snapshot=on`,
    "-device",
    "ide-hd,drive=disk0,bus=ide.0,bootindex=1"
  ]
  const name = `vm${++count}`
  const at = (suffix: string) => join(directory, `${name}.${suffix}`)
  const passes: Array<Pass> = []
  const ticks: Array<number> = []
  const tickedAt: Array<number> = []
  const waiting = new Set<() => void>()
  let console = ""
  let line = ""
  let stderr = ""
  let ended = false
  const changed = () => {
    for (const look of waiting) look()
  }
  await listener(at("com1"), (bytes) => {
    console += bytes.toString("latin1")
    const lines = (line + bytes.toString("latin1")).split("\r\n")
    line = lines.pop()!
    for (const one of lines) {
      const match = /P([0-9A-F]{8}) T([0-9A-F]{8}) B([0-9A-F]{8})$/.exec(one)
      if (match === null) continue
      const [number, told, bad] = match.slice(1).map((digits) => parseInt(digits, 16)) as [number, number, number]
      passes.push({ number, ticks: told, bad })
    }
    changed()
  })
  await listener(at("com2"), (bytes) => {
    const now = performance.now()
    for (const byte of bytes) {
      ticks.push(byte)
      tickedAt.push(now)
    }
    changed()
  })
  const child = spawn(QEMU, [
    "-accel",
    "tcg",
    "-machine",
    machine,
    "-m",
    String(memoryMiB),
    "-smp",
    String(vcpus),
    "-display",
    "none",
    "-no-user-config",
    ...boot,
    "-chardev",
    `socket,id=c1,path=${at("com1")}`,
    "-serial",
    "chardev:c1",
    "-chardev",
    `socket,id=c2,path=${at("com2")}`,
    "-serial",
    "chardev:c2",
    "-qmp",
    `unix:${at("qmp")},server=on,wait=off`,
    "-qmp",
    `unix:${at("own")},server=on,wait=off`,
    ...(incoming === undefined ? [] : ["-incoming", incoming]),
    ...args
  ], { stdio: ["ignore", "inherit", "pipe", ...options.descriptors ?? []] })
  child.stderr!.on("data", (bytes: Buffer) => stderr += bytes.toString())
  const exited = new Promise<number | null>((resolve) => {
    child.on("exit", (code) => {
      ended = true
      resolve(code)
      changed()
    })
  })
  onTestFinished(async () => {
    child.kill("SIGKILL")
    await exited
  })
  const until = (what: string, holds: () => boolean) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!holds() && !ended) return
        waiting.delete(look)
        if (holds()) resolve()
        else reject(new Error(`${name} ended before ${what}: ${stderr}${console.slice(-400)}`))
      }
      waiting.add(look)
      look()
    })
  await new Promise<void>((resolve, reject) => {
    // The socket file of the monitor is there once QEMU has begun; it has no other way to say so.
    const look = () => {
      if (ended) return reject(new Error(`${name} did not start: ${stderr}`))
      try {
        accessSync(at("own"))
        resolve()
      } catch {
        setTimeout(look, 5)
      }
    }
    look()
  })
  return {
    name,
    qmp: at("qmp"),
    child,
    passes,
    ticks,
    tickedAt,
    console: () => console,
    stderr: () => stderr,
    until,
    execute: (command, given) => monitorCommand(at("own"), command, given),
    exited,
    kill: async () => {
      child.kill("SIGKILL")
      await exited
    }
  }
}

/** Waits until the guest has verified all of its pages `more` times more. */
export const verifies = (machine: Machine, more = 2): Promise<void> => {
  const from = machine.passes.length
  // The pass under way began before; only those after it are whole.
  return machine.until(`${more} passes`, () => machine.passes.length >= from + more + 1)
}

/** Every place where a tick is not the one that follows, as `index: from → to`. */
export const lostTicks = ({ ticks }: Machine): ReadonlyArray<string> =>
  ticks.flatMap((tick, i) => i > 0 && tick !== (ticks[i - 1]! + 1) % 256 ? [`${i}: ${ticks[i - 1]} → ${tick}`] : [])
