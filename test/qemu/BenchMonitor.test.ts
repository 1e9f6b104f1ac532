/**
 * The benchmark's connection to a QEMU that is being started. Its socket is there before QEMU listens on it: a connection
 * refused then is not the last word, and whatever does not come is an error, not a benchmark that stands still.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { onTestFinished } from "vitest"
import * as Monitor from "../../bench/qemu/Monitor.ts"

const directory = () => {
  const path = mkdtempSync(join(tmpdir(), "postcopy-monitor-"))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** A process that stands for QEMU: it does nothing until it is ended. */
const idle = () => {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" })
  onTestFinished(() => void child.kill("SIGKILL"))
  return child
}

/** A socket file on which nobody listens, as between bind and listen. */
const deaf = (path: string) => {
  const source = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`
  spawnSync(process.execPath, ["-e", source])
  assert.isTrue(existsSync(path))
}

const answering = (path: string) =>
  createServer((socket) => {
    socket.write(`{"QMP":{}}\n`)
    socket.on("data", () => socket.write(`{"return":{}}\n`)).on("error", () => {})
  }).listen(path)

describe("the monitor of a benchmark's QEMU", () => {
  it("is asked again when it refuses a connection because it does not listen yet", async () => {
    const path = join(directory(), "qmp")
    deaf(path)
    let looks = 0
    const child = new Proxy(idle(), {
      get: (target, name) => {
        // Looked at after each refusal: the second one is the moment at which QEMU begins to listen.
        if (name === "exitCode" && ++looks === 2) {
          rmSync(path)
          const server = answering(path)
          onTestFinished(() => void server.close())
        }
        return Reflect.get(target, name)
      }
    })
    const monitor = await Monitor.connect(child, path)
    assert.deepStrictEqual(await monitor.ask("query-status"), {})
    assert.isAtLeast(looks, 2)
    monitor.close()
  })

  it("is given up when QEMU has ended", async () => {
    const child = idle()
    child.kill("SIGKILL")
    await once(child, "exit")
    const failed = await Monitor.connect(child, join(directory(), "qmp")).then(() => undefined, (error: Error) => error)
    assert.match(failed?.message ?? "", /ended with SIGKILL before: its monitor answers/)
  })

  it("fails what is not answered when it closes", async () => {
    const path = join(directory(), "qmp")
    let commands = 0
    const server = createServer((socket) => {
      socket.on("data", () => ++commands === 1 ? socket.write(`{"return":{}}\n`) : socket.destroy())
    }).listen(path)
    onTestFinished(() => void server.close())
    const monitor = await Monitor.connect(idle(), path)
    const failed = await monitor.ask("query-status").then(() => undefined, (error: Error) => error)
    assert.match(failed?.message ?? "", /closed its monitor before it answered query-status/)
  })
})
