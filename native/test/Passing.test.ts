import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { available, open, P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { constants } = Uffd
const EAGAIN = -11
const EBADF = -9

const bytes = (...values: ReadonlyArray<number>): Uint8Array => new Uint8Array(values)
const openFiles = (): number => fs.readdirSync("/proc/self/fd").length

describe("descriptors over a socket", () => {
  it.skipIf(!available)("arrive as owners of the same open file", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const uffd = open()
    const region = Uffd.Region.anonymous(P)
    Uffd.register(uffd, region.address, P, constants.MODE_MISSING)
    assert.strictEqual(Uffd.sendDescriptors(a, bytes(1, 2), [uffd, a]), 2)
    uffd.close()
    const into = new Uint8Array(16)
    const received = Uffd.receiveDescriptors(b, into)
    assert.strictEqual(received.bytes, 2)
    assert.isFalse(received.truncated)
    assert.strictEqual(received.descriptors.length, 2)
    assert.deepStrictEqual([...into.subarray(0, 3)], [1, 2, 0])
    assert.strictEqual(Uffd.copy(received.descriptors[0]!, region.address, page(1), 0, P, 0), P)
    const closeOnExec = 0o2000000
    for (const descriptor of received.descriptors) {
      const info = fs.readFileSync(`/proc/self/fdinfo/${descriptor.fd}`, "utf8")
      assert.notStrictEqual(parseInt(/flags:\s+(\d+)/.exec(info)![1]!, 8) & closeOnExec, 0)
      descriptor.close()
    }
    region.close()
    a.close()
    b.close()
  })

  it("are none when only data came, nothing waits or the peer is gone", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const into = new Uint8Array(4)
    assert.deepStrictEqual(Uffd.receiveDescriptors(b, into), { bytes: EAGAIN, descriptors: [], truncated: false })
    assert.strictEqual(Uffd.sendDescriptors(a, bytes(7), []), 1)
    assert.deepStrictEqual(Uffd.receiveDescriptors(b, into), { bytes: 1, descriptors: [], truncated: false })
    a.close()
    assert.deepStrictEqual(Uffd.receiveDescriptors(b, into), { bytes: 0, descriptors: [], truncated: false })
    b.close()
  })

  it("beyond what was asked for are dropped and reported", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const before = openFiles()
    const into = new Uint8Array(4)
    for (const [most, arrived] of [[0, 0], [1, 1], [2, 2], [3, 3], [253, 3]] as const) {
      Uffd.sendDescriptors(a, bytes(1), [a, a, b])
      const received = Uffd.receiveDescriptors(b, into, most)
      assert.strictEqual(received.descriptors.length, arrived)
      assert.strictEqual(received.truncated, most < 3)
      for (const descriptor of received.descriptors) descriptor.close()
      assert.strictEqual(openFiles(), before)
    }
    a.close()
    b.close()
  })

  it("come with a report of data that did not fit", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_SEQPACKET)
    Uffd.sendDescriptors(a, bytes(1, 2, 3, 4, 5), [a])
    const received = Uffd.receiveDescriptors(b, new Uint8Array(2))
    assert.strictEqual(received.bytes, 2)
    assert.isTrue(received.truncated)
    assert.strictEqual(received.descriptors.length, 1)
    received.descriptors[0]!.close()
    a.close()
    b.close()
  })

  it("go 253 at a time and no more", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const before = openFiles()
    const many = Array.from({ length: 253 }, () => a)
    assert.strictEqual(Uffd.sendDescriptors(a, bytes(1), many), 1)
    const received = Uffd.receiveDescriptors(b, new Uint8Array(1))
    assert.strictEqual(received.descriptors.length, 253)
    for (const descriptor of received.descriptors) descriptor.close()
    assert.strictEqual(openFiles(), before)
    assert.strictEqual(codeOf(() => Uffd.sendDescriptors(a, bytes(1), [...many, a])), "ERR_OUT_OF_RANGE")
    a.close()
    b.close()
  })

  it("are not sent when one of them is closed", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const [c, d] = Uffd.socketpair(constants.SOCK_STREAM)
    c.close()
    assert.strictEqual(Uffd.sendDescriptors(a, bytes(1), [d, c]), EBADF)
    assert.strictEqual(Uffd.receiveDescriptors(b, new Uint8Array(1)).bytes, EAGAIN)
    for (const descriptor of [a, b, d]) descriptor.close()
  })

  it("are read before they are sent, whatever their getters do", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const [c, d] = Uffd.socketpair(constants.SOCK_STREAM)
    const data = new Uint8Array(64)
    const hostile = [c, d]
    Object.defineProperty(hostile, 1, {
      get: () => {
        c.close()
        structuredClone(data.buffer, { transfer: [data.buffer] })
        return d
      }
    })
    assert.strictEqual(codeOf(() => Uffd.sendDescriptors(a, data, hostile)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(Uffd.sendDescriptors(a, bytes(1), [c, d]), EBADF)
    const throwing = [d]
    Object.defineProperty(throwing, 0, {
      get: () => {
        throw new Error("of the getter")
      }
    })
    assert.throws(() => Uffd.sendDescriptors(a, bytes(1), throwing), "of the getter")
    for (const descriptor of [a, b, d]) descriptor.close()
  })
})
