// Descriptors that cross to other threads by token: counted by holder, and a token whose holders are gone stays
// refused.
import { once } from "node:events"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import { Worker } from "node:worker_threads"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { Dice } from "./Dice.ts"
import { collectGarbage } from "./Garbage.ts"
import { available, open, P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { constants, Descriptor, Region } = Uffd

const server = `
  const { parentPort, workerData } = require("node:worker_threads")
  const u = require(workerData.addon)
  const uffd = u.Descriptor.adopt(workerData.token)
  const ring = new Float64Array(16)
  const poller = new u.FaultPoller(uffd, ring)
  poller.start((count) => {
    for (const { address } of u.decodeEvents(ring, count)) {
      u.copy(uffd, address, new Uint8Array(u.pageSize).fill(7), 0, u.pageSize, 0)
    }
  })
  parentPort.once("message", () => { poller.close(); process.exit(0) })
  parentPort.postMessage("serving")`
const addon = createRequire(import.meta.url).resolve("userfaultfd-napi")

describe("a descriptor's token", () => {
  it.skipIf(!available)("lets another thread serve faults while this one touches", async () => {
    const uffd = open()
    const region = Region.anonymous(4 * P)
    Uffd.register(uffd, region.address, region.length, constants.MODE_MISSING)
    const worker = new Worker(server, { eval: true, workerData: { addon, token: uffd.share() } })
    await once(worker, "message")
    assert.strictEqual(region.fillByte(2 * P, P), 7)
    // The worker's descriptor is its own: this one may go, and the worker still serves.
    const token = uffd.share()
    uffd.close()
    assert.strictEqual(region.fillByte(0, P), 7)
    const again = Descriptor.adopt(token)
    assert.strictEqual(Uffd.copy(again, region.address + P, page(8), 0, P, 0), P)
    again.close()
    worker.postMessage("end")
    await once(worker, "exit")
    assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    // Nobody serves any more: the last userfaultfd went with the thread.
    assert.strictEqual(region.fillByte(3 * P, P), 0)
    region.close()
  })

  it("names one open file, and each holder has a number of its own", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const token = a.share()
    assert.strictEqual(a.share(), token)
    const other = Descriptor.adopt(token)
    assert.notStrictEqual(other.fd, a.fd)
    assert.strictEqual(other.share(), token)
    assert.strictEqual(Uffd.write(other, Uint8Array.of(5), 0, 1), 1)
    const into = new Uint8Array(1)
    assert.strictEqual(Uffd.read(b, into, 0, 1), 1)
    assert.strictEqual(into[0], 5)
    a.close()
    assert.strictEqual(codeOf(() => a.share()), "EBADF")
    // A duplicate is nobody's holder.
    const duplicate = other.dup()
    assert.notStrictEqual(duplicate.share(), token)
    Descriptor.adopt(token).close()
    other.close()
    assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    duplicate.close()
    b.close()
  })

  it("is no region's, nor the other way round", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const region = Region.anonymous(P)
    assert.strictEqual(codeOf(() => Region.adopt(a.share())), "ESTALE")
    assert.strictEqual(codeOf(() => Descriptor.adopt(region.share())), "ESTALE")
    for (const token of [0n, 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    }
    assert.strictEqual(codeOf(() => Descriptor.adopt(-1n)), "ERR_OUT_OF_RANGE")
    for (const owner of [a, b, region]) owner.close()
  })

  it("is stale when the descriptor was released, closed or collected", async () => {
    const make = (): bigint => Uffd.socketpair(constants.SOCK_STREAM)[0].share()
    const collected = make()
    const isStale = (token: bigint): boolean => {
      try {
        Descriptor.adopt(token).close()
        return false
      } catch {
        return true
      }
    }
    await collectGarbage(() => isStale(collected))
    assert.isTrue(isStale(collected))
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const token = a.share()
    const number = a.release()
    assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    // Its number is free for another owner, whose token is another.
    const owner = Descriptor.adopt(number)
    assert.notStrictEqual(owner.share(), token)
    owner.close()
    b.close()
  })

  it("does not give a number that was closed behind the package's back to whoever asks", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const token = a.share()
    fs.closeSync(a.fd)
    // The number is somebody else's now.
    const [c, d] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.strictEqual(c.fd, a.fd)
    assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    assert.strictEqual(codeOf(() => a.share()), "EBADF")
    a.close()
    assert.strictEqual(Uffd.write(c, Uint8Array.of(1), 0, 1), 1)
    for (const owner of [b, c, d]) owner.close()
  })

  it("follows a model of holders, whatever is closed and adopted", () => {
    const dice = new Dice(99)
    const before = fs.readdirSync("/proc/self/fd").length
    const groups: Array<{ readonly token: bigint; readonly holders: Array<Uffd.Descriptor> }> = []
    for (let i = 0; i < 3000; i++) {
      const group = groups.length > 0 ? dice.one(groups) : undefined
      const choice = dice.below(5)
      if (choice === 0 && groups.length < 40) {
        const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
        b.close()
        groups.push({ token: a.share(), holders: [a] })
      } else if (group !== undefined && choice < 3) {
        if (group.holders.length === 0) assert.strictEqual(codeOf(() => Descriptor.adopt(group.token)), "ESTALE")
        else if (group.holders.length < 6) group.holders.push(Descriptor.adopt(group.token))
      } else if (group !== undefined && group.holders.length > 0) {
        group.holders.splice(dice.below(group.holders.length), 1)[0]!.close()
      }
    }
    for (const holder of groups.flatMap(({ holders }) => holders)) holder.close()
    for (const { token } of groups) assert.strictEqual(codeOf(() => Descriptor.adopt(token)), "ESTALE")
    assert.strictEqual(fs.readdirSync("/proc/self/fd").length, before)
  })
})

describe("a number", () => {
  it("of the event loop is not taken over", () => {
    const loop = fs.readdirSync("/proc/self/fd").find((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[eventpoll]"
      } catch {
        return false
      }
    })
    assert.strictEqual(codeOf(() => Descriptor.adopt(Number(loop))), "EBUSY")
  })
})
