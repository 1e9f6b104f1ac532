// Every event of the kernel, from another process: its forks, remappings, unmappings and removals, and its end.
import { once } from "node:events"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import { Worker } from "node:worker_threads"
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, describe, it } from "vitest"
import { Bursts, decode } from "./Bursts.ts"
import { compiled, hasCompiler } from "./Compiled.ts"
import { GuestProcess, readable } from "./GuestProcess.ts"
import { has, P, page } from "./Kernel.ts"

const { constants } = Uffd
const EAGAIN = -11
const ESRCH = -3

const privileged = hasCompiler && Uffd.probe().syscall.available
const program = privileged ? compiled("Guest.cc") : undefined
afterAll(() => program?.[Symbol.dispose]())

const start = (features: number, mode: number = constants.MODE_MISSING): Promise<GuestProcess> =>
  GuestProcess.start(program!.file, { features, mode, pages: 16 })

const drain = (uffd: Uffd.Descriptor): Array<Uffd.UffdEvent> => {
  const ring = new Float64Array(16 * Uffd.EVENT_WORDS)
  return Uffd.decodeEvents(ring, Uffd.readEvents(uffd, ring))
}

/** Descriptors of userfaultfds that this process has open: the others come and go with what Node does. */
const userfaultfds = () =>
  fs.readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[userfaultfd]"
    } catch {
      return false
    }
  }).length

describe.skipIf(!privileged)("events of another process", () => {
  it("give the thread, the exact address and the kind of a fault", async () => {
    const guest = await start(constants.FEATURE_THREAD_ID + constants.FEATURE_EXACT_ADDRESS)
    const read = guest.run("touch", guest.at(3) + 77)
    await readable(guest.uffd)
    const fault = { type: "pagefault", address: guest.at(3) + 77, write: false, wp: false, minor: false } as const
    assert.deepStrictEqual(drain(guest.uffd), [{ ...fault, threadId: guest.pid }])
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(3), page(42), 0, P, 0), P)
    assert.strictEqual(await read, 42)
    const written = guest.run("write", guest.at(4) + 5, 0, 9)
    await readable(guest.uffd)
    assert.deepStrictEqual(drain(guest.uffd), [
      { ...fault, address: guest.at(4) + 5, write: true, threadId: guest.pid }
    ])
    assert.strictEqual(Uffd.zeropage(guest.uffd, guest.at(4), P, 0), P)
    assert.strictEqual(await written, 0)
    await guest.end()
  })

  it("bring the userfaultfd of a forked child, which is served like its parent's", async () => {
    const guest = await start(constants.FEATURE_EVENT_FORK)
    const before = fs.readdirSync("/proc/self/fd").length
    const status = guest.run("fork", guest.at(2))
    await readable(guest.uffd)
    // The fork waits for its event to be read, and nothing can be installed before.
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(5), page(1), 0, P, 0), EAGAIN)
    const [event] = drain(guest.uffd)
    if (event?.type !== "fork") return assert.fail(`not a fork: ${event?.type}`)
    const bursts = new Bursts(event.descriptor)
    assert.strictEqual(await bursts.fault(), guest.at(2))
    assert.strictEqual(Uffd.copy(event.descriptor, guest.at(2), page(55), 0, P, 0), P)
    assert.strictEqual(await status, 55)
    // The parent's page is still missing.
    const byte = guest.run("touch", guest.at(2))
    await readable(guest.uffd)
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(2), page(66), 0, P, 0), P)
    assert.strictEqual(await byte, 66)
    // The child is gone, and its memory with it.
    assert.strictEqual(Uffd.copy(event.descriptor, guest.at(3), page(1), 0, P, 0), ESRCH)
    bursts.close()
    event.descriptor.close()
    await new Promise((resolve) => setImmediate(resolve))
    assert.strictEqual(fs.readdirSync("/proc/self/fd").length, before)
    await guest.end()
  })

  it("whose descriptor nobody adopts close it with the thread that read them", async () => {
    const guest = await start(constants.FEATURE_EVENT_FORK)
    const before = userfaultfds()
    const reader = `
      const { parentPort, workerData } = require("node:worker_threads")
      const u = require(workerData.addon)
      const uffd = u.Descriptor.adopt(workerData.token)
      const poller = new u.Poller(uffd)
      poller.watch(u.constants.READABLE, () => {
        const ring = new Float64Array(u.EVENT_WORDS)
        u.readEvents(uffd, ring)
        parentPort.postMessage(ring[1])
        process.exit(0)
      })`
    const addon = createRequire(import.meta.url).resolve("userfaultfd-napi")
    const worker = new Worker(reader, { eval: true, workerData: { addon, token: guest.uffd.share() } })
    const read = once(worker, "message") as Promise<[number]>
    const ended = once(worker, "exit")
    const status = guest.run("fork", guest.at(2))
    const [number] = await read
    assert.isAbove(number, 2)
    await ended
    assert.strictEqual(userfaultfds(), before)
    // Closed, and so the child sees zeros.
    assert.strictEqual(await status, 0)
    await guest.end()
  })

  it("leave a forked child that nobody asked for with zeros, or without the memory when advised so", async () => {
    const guest = await start(0)
    assert.strictEqual(await guest.run("fork", guest.at(0)), 0)
    assert.strictEqual(await guest.run("advise", guest.at(0), 16 * P, constants.MADV_DONTFORK), 0)
    const segmentationFault = 1011
    assert.strictEqual(await guest.run("fork", guest.at(0)), segmentationFault)
    await guest.end()
  })

  it("tell where a range was moved, and its pages are missing there", async () => {
    const guest = await start(constants.FEATURE_EVENT_REMAP)
    const there = guest.at(16)
    const moved = guest.run("remap", guest.at(4), 2 * P, there)
    await readable(guest.uffd)
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(0), page(1), 0, P, 0), EAGAIN)
    assert.deepStrictEqual(drain(guest.uffd), [{ type: "remap", from: guest.at(4), to: there, length: 2 * P }])
    assert.strictEqual(await moved, there)
    const byte = guest.run("touch", there + P)
    await readable(guest.uffd)
    assert.strictEqual(Uffd.copy(guest.uffd, there + P, page(7), 0, P, 0), P)
    assert.strictEqual(await byte, 7)
    await guest.end()
  })

  it("tell that a range was unmapped, and it is gone for ever", async () => {
    const guest = await start(constants.FEATURE_EVENT_UNMAP)
    const unmapped = guest.run("unmap", guest.at(4), 2 * P)
    await readable(guest.uffd)
    assert.strictEqual(Uffd.zeropage(guest.uffd, guest.at(0), P, 0), EAGAIN)
    assert.deepStrictEqual(drain(guest.uffd), [{ type: "unmap", start: guest.at(4), end: guest.at(6) }])
    assert.strictEqual(await unmapped, 0)
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(4), page(1), 0, P, 0), -2)
    await guest.end()
  })

  it("tell what was removed, whose pages are missing again", async () => {
    const guest = await start(constants.FEATURE_EVENT_REMOVE)
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(1), page(3), 0, P, 0), P)
    const removed = guest.run("advise", guest.at(1), P, constants.MADV_DONTNEED)
    await readable(guest.uffd)
    assert.deepStrictEqual(drain(guest.uffd), [{ type: "remove", start: guest.at(1), end: guest.at(2) }])
    assert.strictEqual(await removed, 0)
    const byte = guest.run("touch", guest.at(1))
    await readable(guest.uffd)
    assert.strictEqual(Uffd.zeropage(guest.uffd, guest.at(1), P, 0), P)
    assert.strictEqual(await byte, 0)
    await guest.end()
  })

  it("end with ESRCH once the process is gone", async () => {
    const guest = await start(0)
    await guest.kill()
    assert.strictEqual(Uffd.copy(guest.uffd, guest.at(0), page(1), 0, P, 0), ESRCH)
    assert.strictEqual(Uffd.zeropage(guest.uffd, guest.at(0), P, 0), ESRCH)
    assert.strictEqual(Uffd.installPages(guest.uffd, Float64Array.of(guest.at(0), 0, P, 0, 0, 0), 0, 1, page(1)), 0)
    await guest.end()
  })

  it("leave a thread that nobody serves parked, and SIGKILL ends it", async () => {
    const guest = await start(0)
    const answer = guest.run("touch", guest.at(0)).catch((error: Error) => error.message)
    await readable(guest.uffd)
    const waiting = () => /total:\s+(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${guest.uffd.fd}`, "utf8"))![1]
    assert.strictEqual(waiting(), "1")
    // Woken without a page it only waits again.
    assert.strictEqual(drain(guest.uffd).length, 1)
    assert.strictEqual(Uffd.wake(guest.uffd, guest.at(0), P), 0)
    await readable(guest.uffd)
    assert.strictEqual(waiting(), "1")
    await guest.kill()
    assert.strictEqual(await answer, "the guest is gone")
    await guest.end()
  })

  it("cannot be answered by moving pages from this process", async () => {
    const guest = await start(constants.FEATURE_MOVE)
    const region = Uffd.Region.anonymous(P)
    region.write(0, page(5), 0, P)
    assert.strictEqual(Uffd.move(guest.uffd, guest.at(0), region.address, P, 0), -22)
    assert.strictEqual(region.fillByte(0, P), 5)
    region.close()
    await guest.end()
  })

  it.skipIf(!has(constants.FEATURE_WP_ASYNC))("are not needed to see what the process wrote", async () => {
    const guest = await start(constants.FEATURE_WP_ASYNC, constants.MODE_WP)
    assert.strictEqual(Uffd.writeProtect(guest.uffd, guest.at(0), 16 * P, constants.WRITEPROTECT_WP), 0)
    const pagemap = Uffd.openPagemap(guest.pid)
    const runs = new Float64Array(4 * Uffd.RUN_WORDS)
    const scan = (reprotect: boolean) =>
      Uffd.scanPages(pagemap, guest.at(0), 16 * P, { required: constants.PAGE_IS_WRITTEN, reprotect }, runs)
    assert.deepStrictEqual(scan(true), { runs: 0, end: guest.at(16) })
    await guest.run("write", guest.at(7), 0, 1)
    assert.deepStrictEqual(scan(true), { runs: 1, end: guest.at(16) })
    assert.deepStrictEqual([...runs.subarray(0, 3)], [guest.at(7), guest.at(8), constants.PAGE_IS_WRITTEN])
    assert.strictEqual(scan(false).runs, 0)
    pagemap.close()
    await guest.end()
  })
})

describe("decoded events", () => {
  it("are the words of a ring, and those of a later kernel unknown", () => {
    const ring = Float64Array.of(constants.EVENT_PAGEFAULT, 7, P, 9, 0x99, 1, 2, 3)
    assert.deepStrictEqual(Uffd.decodeEvents(ring, 2), [
      { type: "pagefault", address: P, write: true, wp: true, minor: true, threadId: 9 },
      { type: "unknown", event: 0x99 }
    ])
    assert.throws(() => Uffd.decodeEvents(ring, 3), RangeError)
    assert.throws(() => Uffd.decodeEvents([] as unknown as Float64Array, 0), TypeError)
    assert.throws(() => Uffd.decodeEvents(ring, -1), RangeError)
    assert.deepStrictEqual(decode(ring, 0), [])
  })
})
