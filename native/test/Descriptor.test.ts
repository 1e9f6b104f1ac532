import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { collectGarbage } from "./Garbage.ts"
import { available, open } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { Descriptor, socketpair, constants } = Uffd

const openFiles = (): number => fs.readdirSync("/proc/self/fd").length

const isOpen = (fd: number): boolean => fs.existsSync(`/proc/self/fd/${fd}`)

describe("Descriptor", () => {
  it("B55: is closed once, and -1 afterwards", () => {
    const [a, b] = socketpair(constants.SOCK_STREAM)
    const number = a.fd
    assert.isTrue(isOpen(number))
    a.close()
    assert.strictEqual(a.fd, -1)
    assert.isFalse(isOpen(number))
    a.close()
    b.close()
  })

  it("B55: does not close the successor of its number", () => {
    const [a, b] = socketpair(constants.SOCK_STREAM)
    const number = a.fd
    // Somebody closes the number behind our back; the kernel gives the lowest free one to the next.
    fs.closeSync(number)
    const successor = Descriptor.duplicate(b.fd)
    assert.strictEqual(successor.fd, number)
    a.close()
    assert.isTrue(isOpen(number))
    successor.close()
    assert.isFalse(isOpen(number))
    b.close()
  })

  it("gives -EBADF to signed calls and throws EBADF from the others once closed", () => {
    const [a, b] = socketpair(constants.SOCK_STREAM)
    a.close()
    b.close()
    const bytes = new Uint8Array(8)
    assert.strictEqual(Uffd.read(a, bytes, 0, 8), -9)
    assert.strictEqual(Uffd.write(a, bytes, 0, 8), -9)
    assert.strictEqual(Uffd.copy(a, 0, bytes, 0, 8, 0), -9)
    assert.strictEqual(Uffd.zeropage(a, 0, 8, 0), -9)
    assert.strictEqual(Uffd.continueRange(a, 0, 8, 0), -9)
    assert.strictEqual(Uffd.wake(a, 0, 8), -9)
    assert.strictEqual(Uffd.poison(a, 0, 8), -9)
    assert.strictEqual(Uffd.readEvents(a, new Float64Array(4)), -9)
    assert.strictEqual(Uffd.unsentBytes(a), -9)
    assert.strictEqual(Uffd.sendDescriptors(a, bytes, []), -9)
    assert.strictEqual(Uffd.receiveDescriptors(a, bytes).bytes, -9)
    const calls: ReadonlyArray<() => unknown> = [
      () => a.dup(),
      () => a.release(),
      () => Uffd.register(a, 0, 4096, 1),
      () => Uffd.unregister(a, 0, 4096),
      () => Uffd.accept(a),
      () => Uffd.socketError(a),
      () => Uffd.localAddress(a),
      () => Uffd.shutdown(a, 2),
      () => Uffd.setNonBlocking(a, true),
      () => Uffd.setSocketOptions(a, { noDelay: true }),
      () => Uffd.describe(a),
      () => Uffd.peerCredentials(a),
      () => Uffd.Region.map(a, 0, Uffd.pageSize),
      () => new Uffd.Poller(a),
      () => new Uffd.FaultPoller(a, new Float64Array(4))
    ]
    for (const call of calls) assert.strictEqual(codeOf(call), "EBADF", call.toString())
  })

  it("duplicates, adopts and releases numbers", () => {
    const [a, b] = socketpair(constants.SOCK_STREAM)
    const copy = a.dup()
    assert.notStrictEqual(copy.fd, a.fd)
    a.close()
    assert.strictEqual(Uffd.write(copy, new Uint8Array([5]), 0, 1), 1)
    const number = copy.release()
    assert.strictEqual(copy.fd, -1)
    assert.isTrue(isOpen(number))
    const adopted = Descriptor.adopt(number)
    assert.strictEqual(adopted.fd, number)
    const into = new Uint8Array(1)
    assert.strictEqual(Uffd.read(b, into, 0, 1), 1)
    assert.strictEqual(into[0], 5)
    adopted.close()
    b.close()
  })

  it("adopts no number that is closed or has an owner", () => {
    const [a, b] = socketpair(constants.SOCK_STREAM)
    assert.strictEqual(codeOf(() => Descriptor.adopt(a.fd)), "EBUSY")
    const number = a.fd
    a.close()
    assert.strictEqual(codeOf(() => Descriptor.adopt(number)), "EBADF")
    assert.strictEqual(codeOf(() => Descriptor.duplicate(number)), "EBADF")
    b.close()
  })

  it("is closed when it is collected", async () => {
    const before = openFiles()
    const make = () => {
      for (let i = 0; i < 50; i++) socketpair(constants.SOCK_STREAM)
    }
    make()
    await collectGarbage(() => openFiles() === before)
    assert.strictEqual(openFiles(), before)
  })

  it.skipIf(!available)("leaves no number behind after 200 cycles of opening and closing everything", async () => {
    const cycle = () => {
      const uffd = open()
      const region = Uffd.Region.memfd("cycle", Uffd.pageSize)
      Uffd.register(uffd, region.address, region.length, constants.MODE_MISSING)
      const poller = new Uffd.FaultPoller(uffd, new Float64Array(4))
      poller.start(() => {})
      const [a, b] = socketpair(constants.SOCK_STREAM)
      const ready = new Uffd.Poller(a)
      ready.watch(constants.READABLE, () => {})
      ready.close()
      poller.close()
      a.close()
      b.close()
      uffd.close()
      region.close()
    }
    cycle()
    const before = openFiles()
    for (let i = 0; i < 200; i++) cycle()
    assert.strictEqual(openFiles(), before)
    await new Promise((resolve) => setImmediate(resolve))
  })
})
