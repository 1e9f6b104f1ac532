import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { codeOf, thrown } from "./Thrown.ts"

const { constants, Poller } = Uffd
const EAGAIN = -11
const EPIPE = -32
const ENOTTY = -25

const ready = (descriptor: Uffd.Descriptor, events: number): Promise<void> =>
  new Promise((resolve) => {
    const poller = new Poller(descriptor)
    poller.watch(events, () => {
      poller.close()
      resolve()
    })
  })

let directory = ""
beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-"))
})
afterAll(() => fs.rmSync(directory, { recursive: true }))

const close = (...descriptors: ReadonlyArray<Uffd.Descriptor>): void => {
  for (const descriptor of descriptors) descriptor.close()
}

describe("TCP sockets", () => {
  for (const [host, family] of [["127.0.0.1", "IPv4"], ["::1", "IPv6"]] as const) {
    it(`connect over ${family} and carry bytes`, async (context) => {
      const addresses = Object.values(os.networkInterfaces()).flat()
      if (!addresses.some((address) => address?.address === host)) context.skip(`this host has no ${host}`)
      const listener = Uffd.listenTcp(host, 0, 8)
      const address = Uffd.localAddress(listener)
      if (address.family === "unix") return assert.fail("a unix address")
      assert.strictEqual(address.family, family)
      assert.strictEqual(address.host, host)
      assert.isNull(Uffd.accept(listener))
      assert.deepStrictEqual(Uffd.describe(listener), {
        access: "rw",
        kind: "socket",
        socketType: constants.SOCK_STREAM,
        family: "tcp",
        listening: true
      })

      const client = Uffd.connectTcp(host, address.port)
      await ready(client, constants.WRITABLE)
      assert.strictEqual(Uffd.socketError(client), 0)
      await ready(listener, constants.READABLE)
      const server = Uffd.accept(listener)!
      Uffd.setSocketOptions(client, {
        noDelay: true,
        quickAck: true,
        sendBuffer: 65536,
        receiveBuffer: 65536,
        notSentLowWater: 16384
      })
      Uffd.setSocketOptions(client, {})

      const into = new Uint8Array(10)
      assert.strictEqual(Uffd.read(server, into, 0, 10), EAGAIN)
      assert.strictEqual(Uffd.write(client, new Uint8Array([0, 1, 2, 3]), 1, 3), 3)
      await ready(server, constants.READABLE)
      assert.strictEqual(Uffd.read(server, into, 4, 6), 3)
      assert.deepStrictEqual([...into], [0, 0, 0, 0, 1, 2, 3, 0, 0, 0])
      assert.isAtLeast(Uffd.unsentBytes(client), 0)
      Uffd.shutdown(client, constants.SHUT_WR)
      await ready(server, constants.READABLE)
      assert.strictEqual(Uffd.read(server, into, 0, 10), 0)
      close(client, server, listener)
    })
  }

  it("say why they cannot listen or connect", () => {
    const listener = Uffd.listenTcp("127.0.0.1", 0, 1)
    const { port } = Uffd.localAddress(listener) as { readonly port: number }
    const error = thrown(() => Uffd.listenTcp("127.0.0.1", port, 1))
    assert.strictEqual(error.code, "EADDRINUSE")
    assert.strictEqual(error.syscall, "bind")
    for (const host of ["localhost", "", "1.2.3", "::1%nosuchzone", "fe80::%"]) {
      assert.strictEqual(codeOf(() => Uffd.connectTcp(host, port)), "ERR_OUT_OF_RANGE", host)
    }
    assert.strictEqual(codeOf(() => Uffd.connectTcp("127.0.0.1", 0)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Uffd.peerCredentials(listener)), "ENOTSUP")
    listener.close()
  })
})

describe("unix sockets", () => {
  it("get exactly the mode that was asked for", () => {
    const umask = process.umask(0o077)
    try {
      for (const mode of [undefined, 0o600, 0o660, 0o777, 0o000]) {
        const name = path.join(directory, `mode-${mode}`)
        const listener = Uffd.listenUnix(name, 4, mode)
        assert.strictEqual(fs.lstatSync(name).mode & 0o777, mode ?? 0o600)
        listener.close()
      }
    } finally {
      process.umask(umask)
    }
  })

  it("connect, tell who the peer is, and are probed without taking a connection", async () => {
    const name = path.join(directory, "live")
    assert.strictEqual(Uffd.probeUnix(name), "absent")
    assert.strictEqual(codeOf(() => Uffd.connectUnix(name)), "ENOENT")
    const listener = Uffd.listenUnix(name, 1)
    assert.strictEqual(Uffd.probeUnix(name), "live")
    assert.isNull(Uffd.accept(listener))
    assert.deepStrictEqual(Uffd.localAddress(listener), { family: "unix", path: name })
    assert.strictEqual(codeOf(() => Uffd.listenUnix(name, 1)), "EADDRINUSE")
    const client = Uffd.connectUnix(name)
    const server = Uffd.accept(listener)!
    const uid = process.getuid!()
    const gid = process.getgid!()
    assert.deepStrictEqual(Uffd.peerCredentials(server), { pid: process.pid, uid, gid })
    assert.deepStrictEqual(Uffd.localAddress(client), { family: "unix", path: "" })
    assert.strictEqual(Uffd.write(client, new Uint8Array(100), 0, 100), 100)
    assert.isAbove(Uffd.unsentBytes(client), 0)
    assert.strictEqual(Uffd.read(server, new Uint8Array(200), 0, 200), 100)
    assert.strictEqual(Uffd.unsentBytes(client), 0)
    close(client, server, listener)
    assert.strictEqual(Uffd.probeUnix(name), "stale")
    assert.strictEqual(codeOf(() => Uffd.connectUnix(name)), "ECONNREFUSED")
    assert.strictEqual(Uffd.probeUnix(path.join(name, "below")), "ENOTDIR")
  })

  it("refuse paths that no socket can have", () => {
    assert.strictEqual(codeOf(() => Uffd.listenUnix(path.join(directory, "x".repeat(108)), 1)), "ENAMETOOLONG")
    assert.strictEqual(codeOf(() => Uffd.connectUnix("")), "ENOENT")
    assert.strictEqual(codeOf(() => Uffd.probeUnix("a\0b")), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Uffd.listenUnix(path.join(directory, "no", "such"), 1)), "ENOENT")
  })

  it("give -EPIPE and no signal when the reader is gone", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    b.close()
    assert.strictEqual(Uffd.write(a, new Uint8Array(1), 0, 1), EPIPE)
    assert.strictEqual(Uffd.sendDescriptors(a, new Uint8Array(1), []), EPIPE)
    a.close()
  })

  it("keep the boundaries of their kind", () => {
    for (const type of [constants.SOCK_DGRAM, constants.SOCK_SEQPACKET]) {
      const [a, b] = Uffd.socketpair(type)
      assert.strictEqual(Uffd.describe(a).socketType, type)
      Uffd.write(a, new Uint8Array(3), 0, 3)
      Uffd.write(a, new Uint8Array(4), 0, 4)
      assert.strictEqual(Uffd.read(b, new Uint8Array(10), 0, 10), 3)
      close(a, b)
    }
    assert.strictEqual(codeOf(() => Uffd.socketpair(3)), "ERR_OUT_OF_RANGE")
  })
})

describe("descriptors of every kind", () => {
  it("are described", () => {
    const file = path.join(directory, "file")
    const of = (flags: string, name = file) => {
      const descriptor = Uffd.Descriptor.adopt(fs.openSync(name, flags))
      const description = Uffd.describe(descriptor)
      descriptor.close()
      return description
    }
    const plain = { kind: "file", socketType: 0, family: null, listening: false }
    assert.deepStrictEqual(of("w"), { access: "w", ...plain } as ReturnType<typeof Uffd.describe>)
    assert.deepStrictEqual(of("r"), { access: "r", ...plain } as ReturnType<typeof Uffd.describe>)
    assert.deepStrictEqual(of("r+"), { access: "rw", ...plain } as ReturnType<typeof Uffd.describe>)
    assert.strictEqual(of("r", "/dev/null").kind, "other")
  })

  it("are read and written, files too", () => {
    const name = path.join(directory, "written")
    const out = Uffd.Descriptor.adopt(fs.openSync(name, "w"))
    assert.strictEqual(Uffd.write(out, new Uint8Array([1, 2, 3]), 0, 3), 3)
    assert.strictEqual(Uffd.write(out, new Uint8Array([1, 2, 3]), 1, 2), 2)
    assert.strictEqual(Uffd.unsentBytes(out), ENOTTY)
    assert.strictEqual(codeOf(() => Uffd.socketError(out)), "ENOTSOCK")
    assert.strictEqual(codeOf(() => Uffd.accept(out)), "ENOTSOCK")
    out.close()
    assert.deepStrictEqual([...fs.readFileSync(name)], [1, 2, 3, 2, 3])
  })

  it("become blocking and non-blocking", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const flags = (): number => {
      const info = fs.readFileSync(`/proc/self/fdinfo/${a.fd}`, "utf8")
      return parseInt(/flags:\s+(\d+)/.exec(info)![1]!, 8)
    }
    assert.notStrictEqual(flags() & fs.constants.O_NONBLOCK, 0)
    Uffd.setNonBlocking(a, false)
    assert.strictEqual(flags() & fs.constants.O_NONBLOCK, 0)
    Uffd.setNonBlocking(a, true)
    assert.notStrictEqual(flags() & fs.constants.O_NONBLOCK, 0)
    close(a, b)
  })
})
