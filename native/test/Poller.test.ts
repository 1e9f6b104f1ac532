import { closeSync, openSync, readdirSync } from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { collectGarbage } from "./Garbage.ts"
import { anonymous, available, open, P, page } from "./Kernel.ts"
import { pendingFaults, queued } from "./Queue.ts"
import { codeOf } from "./Thrown.ts"
import { Toucher } from "./Toucher.ts"

const { constants, Poller } = Uffd
const { READABLE, WRITABLE, DISCONNECT } = constants

const pair = () => Uffd.socketpair(constants.SOCK_STREAM)
const one = new Uint8Array([1])

/** One callback of a poller, which is paused with it. */
const ready = (poller: Uffd.Poller, events: number): Promise<readonly [status: number, events: number]> =>
  new Promise((resolve) => {
    poller.watch(events, (status, found) => {
      poller.pause()
      resolve([status, found])
    })
  })

/** Several turns of the event loop, in which a callback that should not come would come. */
const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}

describe("Poller", () => {
  it("reports what is watched and ready", async () => {
    const [a, b] = pair()
    const poller = new Poller(a)
    assert.deepStrictEqual(await ready(poller, WRITABLE), [0, WRITABLE])
    Uffd.write(b, one, 0, 1)
    assert.deepStrictEqual(await ready(poller, READABLE), [0, READABLE])
    assert.deepStrictEqual(await ready(poller, READABLE | WRITABLE), [0, READABLE | WRITABLE])
    b.close()
    const [, events] = await ready(poller, DISCONNECT)
    assert.strictEqual(events & DISCONNECT, DISCONNECT)
    poller.close()
    a.close()
  })

  it("B54: reports descriptors above 1023 as all others", async () => {
    const many = Array.from({ length: 1100 }, () => openSync("/dev/null", "r"))
    const [a, b] = pair()
    assert.isAbove(a.fd, 1023)
    const poller = new Poller(a)
    // Only now: what the poller duplicates is to be above, too.
    many.forEach(closeSync)
    assert.deepStrictEqual(await ready(poller, WRITABLE), [0, WRITABLE])
    Uffd.write(b, one, 0, 1)
    assert.deepStrictEqual(await ready(poller, READABLE), [0, READABLE])
    poller.close()
    a.close()
    b.close()
  })

  it("goes on when the descriptor it was made of is closed", async () => {
    const [a, b] = pair()
    const poller = new Poller(a)
    a.close()
    Uffd.write(b, one, 0, 1)
    assert.deepStrictEqual(await ready(poller, READABLE), [0, READABLE])
    poller.close()
    b.close()
  })

  it("calls nobody while it is paused, and again after", async () => {
    const [a, b] = pair()
    const poller = new Poller(a)
    let calls = 0
    Uffd.write(b, one, 0, 1)
    const first = new Promise<void>((resolve) => {
      poller.watch(READABLE, () => {
        calls += 1
        poller.pause()
        resolve()
      })
    })
    await first
    await turns()
    assert.strictEqual(calls, 1)
    const second = new Promise<void>((resolve) => {
      poller.watch(0, () => {
        calls += 1
        resolve()
      })
    })
    poller.resume()
    await turns()
    assert.strictEqual(calls, 1)
    poller.watch(READABLE, () => {
      calls += 1
      poller.close()
      // Once closed nothing happens, whatever is called.
      poller.pause()
      poller.resume()
      poller.ref()
      poller.unref()
      poller.close()
    })
    await turns()
    assert.strictEqual(calls, 2)
    assert.strictEqual(codeOf(() => poller.watch(READABLE, () => {})), "EBADF")
    void second
    a.close()
    b.close()
  })

  it("is quiet before the first watch and after the close", async () => {
    const [a, b] = pair()
    Uffd.write(b, one, 0, 1)
    const poller = new Poller(a)
    poller.pause()
    poller.resume()
    poller.watch(READABLE, () => assert.fail("called after close"))
    poller.close()
    await turns()
    a.close()
    b.close()
  })

  it("lets many pollers watch one descriptor", async () => {
    const [a, b] = pair()
    const pollers = Array.from({ length: 20 }, () => new Poller(a))
    const all = Promise.all(pollers.map((poller) => ready(poller, READABLE)))
    Uffd.write(b, one, 0, 1)
    assert.deepStrictEqual(await all, pollers.map(() => [0, READABLE] as const))
    for (const poller of pollers) poller.close()
    a.close()
    b.close()
  })

  it("reports an error condition as readiness, so that the next call says which", async () => {
    const listener = Uffd.listenTcp("127.0.0.1", 0, 1)
    const { port } = Uffd.localAddress(listener) as { readonly port: number }
    listener.close()
    const socket = Uffd.connectTcp("127.0.0.1", port)
    const poller = new Poller(socket)
    assert.deepStrictEqual(await ready(poller, WRITABLE), [0, WRITABLE])
    assert.strictEqual(Uffd.errnoName(Uffd.socketError(socket)), "ECONNREFUSED")
    // Polling goes on after it, as nobody stopped it: the other end is gone, which is readable.
    const [status, events] = await ready(poller, READABLE)
    assert.strictEqual(status, 0)
    assert.strictEqual(events, READABLE)
    poller.close()
    socket.close()
  })

  it("is closed when it is collected, which it is not while it watches", async () => {
    const [a, b] = pair()
    const openFiles = (): number => readdirSync("/proc/self/fd").length
    const before = openFiles()
    let calls = 0
    const make = () => {
      new Poller(a)
      new Poller(a).watch(0, () => {})
      const watching = new Poller(a)
      watching.watch(READABLE, () => {
        calls += 1
        watching.close()
      })
    }
    make()
    await collectGarbage(() => openFiles() === before + 1)
    assert.strictEqual(openFiles(), before + 1)
    Uffd.write(b, one, 0, 1)
    await turns()
    assert.strictEqual(calls, 1)
    assert.strictEqual(openFiles(), before)
    a.close()
    b.close()
  })

  it("refuses files that cannot be polled", () => {
    const region = Uffd.Region.memfd("not pollable", Uffd.pageSize)
    const file = region.descriptor()!
    assert.strictEqual(codeOf(() => new Poller(file)), "EPERM")
    file.close()
    region.close()
  })
})

/** Two threads that wait for the two pages of a region, and a poller with room for one event that was not started yet. */
const twoWaiting = async (g: ReturnType<typeof anonymous>) => {
  const ring = new Float64Array(Uffd.EVENT_WORDS)
  const poller = new Uffd.FaultPoller(g.uffd, ring)
  const touchers = await Promise.all([0, 1].map(() => Toucher.start(g.region)))
  const bytes = touchers.map((toucher, i) => toucher.byte(i * P))
  await queued(g.uffd, () => pendingFaults(g.uffd) === 2)
  return { ring, poller, touchers, bytes }
}

describe.skipIf(!available)("FaultPoller", () => {
  it("says that its ring was transferred away, and pauses", async () => {
    using g = anonymous(1)
    const ring = new Float64Array(8)
    const poller = new Uffd.FaultPoller(g.uffd, ring)
    const counts: Array<number> = []
    const toucher = await Toucher.start(g.region)
    const first = new Promise<void>((resolve) => {
      poller.start((count) => {
        counts.push(count)
        resolve()
      })
    })
    structuredClone(ring, { transfer: [ring.buffer] })
    const byte = toucher.byte(0)
    await first
    await turns()
    assert.deepStrictEqual(counts, [-105])
    const spare = new Float64Array(8)
    assert.strictEqual(Uffd.readEvents(g.uffd, spare), 1)
    assert.strictEqual(Uffd.copy(g.uffd, spare[2]!, page(5), 0, P, 0), P)
    assert.strictEqual(await byte, 5)
    poller.close()
    await toucher.end()
  })

  it("fills its ring and comes again for the rest", async () => {
    using g = anonymous(3)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new Uffd.FaultPoller(g.uffd, ring)
    const touchers = await Promise.all([0, 1, 2].map(() => Toucher.start(g.region)))
    poller.start((count) => {
      assert.strictEqual(count, 1)
      Uffd.copy(g.uffd, ring[2]!, page(7), 0, P, 0)
    })
    assert.deepStrictEqual(await Promise.all(touchers.map((toucher, i) => toucher.byte(i * P))), [7, 7, 7])
    poller.close()
    await Promise.all(touchers.map((toucher) => toucher.end()))
  })

  /** Serves 64 faults, each of which follows the answer of the one before; how many came in the turn of their predecessor. */
  const joined = async (lingerNanos: number | undefined) => {
    using g = anonymous(64)
    const ring = new Float64Array(Uffd.EVENT_WORDS)
    const poller = new Uffd.FaultPoller(g.uffd, ring)
    const toucher = await Toucher.start(g.region)
    let ticked = true
    let same = 0
    poller.start(() => {
      if (!ticked) same++
      ticked = false
      process.nextTick(() => ticked = true)
      Uffd.copy(g.uffd, ring[2]!, page(7), 0, P, 0)
    }, lingerNanos)
    const bytes = await toucher.run({ kind: "read", offset: 0, length: 64 * P })
    assert.isTrue((bytes as Uint8Array).every((byte) => byte === 7))
    poller.close()
    await toucher.end()
    return same
  }

  it("lingers for the fault that follows an answer, and runs what a callback queued when the turn is over", async () => {
    assert.strictEqual(await joined(undefined), 0)
    assert.strictEqual(await joined(0), 0)
    assert.isAbove(await joined(1_000_000), 0)
  })

  it.each([
    ["closes it", (poller: Uffd.FaultPoller) => poller.close()],
    ["pauses it", (poller: Uffd.FaultPoller) => poller.pause()],
    ["starts it anew without lingering", (poller: Uffd.FaultPoller, next: () => void) => poller.start(next)]
  ])("is asked nothing more by its lingering callback that %s", async (what, act) => {
    using g = anonymous(2)
    const { bytes, poller, ring, touchers } = await twoWaiting(g)
    const counts: Array<string> = []
    const serve = () => Uffd.copy(g.uffd, ring[2]!, page(7), 0, P, 0)
    const both = new Promise<void>((resolve) => {
      const second = () => {
        counts.push("second")
        serve()
        resolve()
      }
      poller.start(() => {
        counts.push("first")
        serve()
        act(poller, second)
        setImmediate(resolve)
      }, 1_000_000)
    })
    await both
    assert.deepStrictEqual(counts.slice(0, 1), ["first"])
    if (what.startsWith("starts")) assert.deepStrictEqual(await Promise.all(bytes), [7, 7])
    else {
      assert.deepStrictEqual(counts, ["first"])
      assert.strictEqual(Uffd.readEvents(g.uffd, ring), 1)
      serve()
      assert.deepStrictEqual(await Promise.all(bytes), [7, 7])
    }
    poller.close()
    await Promise.all(touchers.map((toucher) => toucher.end()))
  })

  it("says while it lingers that its ring was transferred away, once", async () => {
    using g = anonymous(2)
    const { bytes, poller, ring, touchers } = await twoWaiting(g)
    const counts: Array<number> = []
    const said = new Promise<void>((resolve) => {
      poller.start((count) => {
        counts.push(count)
        if (count < 0) return resolve()
        Uffd.copy(g.uffd, ring[2]!, page(7), 0, P, 0)
        structuredClone(ring, { transfer: [ring.buffer] })
      }, 1_000_000)
    })
    await said
    await turns()
    assert.deepStrictEqual(counts, [1, -105])
    const spare = new Float64Array(Uffd.EVENT_WORDS)
    assert.strictEqual(Uffd.readEvents(g.uffd, spare), 1)
    Uffd.copy(g.uffd, spare[2]!, page(7), 0, P, 0)
    assert.deepStrictEqual(await Promise.all(bytes), [7, 7])
    poller.close()
    await Promise.all(touchers.map((toucher) => toucher.end()))
  })

  it("refuses to linger for longer than a millisecond", () => {
    using g = anonymous(1)
    const poller = new Uffd.FaultPoller(g.uffd, new Float64Array(4))
    for (const nanos of [1_000_001, -1, NaN]) {
      assert.strictEqual(codeOf(() => poller.start(() => {}, nanos)), "ERR_OUT_OF_RANGE")
    }
    poller.close()
  })

  it("refuses a ring without room and everything after its close", () => {
    const uffd = open()
    assert.strictEqual(codeOf(() => new Uffd.FaultPoller(uffd, new Float64Array(3))), "ERR_OUT_OF_RANGE")
    const poller = new Uffd.FaultPoller(uffd, new Float64Array(4))
    poller.close()
    poller.close()
    poller.pause()
    poller.resume()
    poller.ref()
    poller.unref()
    assert.strictEqual(codeOf(() => poller.start(() => {})), "EBADF")
    uffd.close()
  })
})
