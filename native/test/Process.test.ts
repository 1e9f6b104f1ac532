import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { codeOf, thrown } from "./Thrown.ts"

const addon = JSON.stringify(createRequire(import.meta.url).resolve("userfaultfd-napi"))

describe("the process", () => {
  it("tells the thread's number and the monotonic time", () => {
    assert.isTrue(fs.existsSync(`/proc/self/task/${Uffd.threadId()}`))
    const hr = Number(process.hrtime.bigint())
    const now = Uffd.monotonicNanos()
    assert.isAtLeast(now, hr)
    assert.isBelow(now - hr, 1e9)
  })

  it("is replaced by another program, with the descriptors that are kept", () => {
    const script = `
      const u = require(${addon})
      const region = u.Region.memfd("kept", u.pageSize)
      const kept = region.descriptor()
      const other = region.descriptor()
      region.write(0, new TextEncoder().encode("seen through the file"), 0, 21)
      u.execute("/bin/sh", ["-c",
        "head -c 21 /proc/self/fd/$1; test -e /proc/self/fd/$2 && echo leaked; echo \\"$NAME|$0|$HOME\\"",
        "zero", String(kept.fd), String(other.fd)], { NAME: "a value", ABSENT: undefined }, [kept.fd])`
    const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", script], { encoding: "utf8" })
    assert.strictEqual(stderr, "")
    assert.strictEqual(stdout, "seen through the filea value|zero|\n")
    assert.strictEqual(status, 0)
  })

  it("stays as it was when it cannot be replaced", () => {
    const [a, b] = Uffd.socketpair(Uffd.constants.SOCK_STREAM)
    const closeOnExec = () =>
      parseInt(/flags:\s+(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${a.fd}`, "utf8"))![1]!, 8) & 0o2000000
    const error = thrown(() => Uffd.execute("/nonexistent/program", [], {}, [a.fd]))
    assert.strictEqual(error.code, "ENOENT")
    assert.strictEqual(error.syscall, "execve")
    assert.include(error.message, "/nonexistent/program")
    assert.notStrictEqual(closeOnExec(), 0)
    const number = b.fd
    b.close()
    assert.strictEqual(codeOf(() => Uffd.execute("/bin/true", [], {}, [a.fd, number])), "EBADF")
    assert.notStrictEqual(closeOnExec(), 0)
    a.close()
  })
})
