/**
 * A relay between source and destination that forwards exactly so many bytes of one direction and then cuts the link: both
 * ends closed at once, or only the sending of that direction. It never takes a byte from a sender that it does not
 * forward, so a sender knows what a direct link would have told it.
 */
import { rmSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { onTestFinished } from "vitest"

const addon: typeof import("userfaultfd-napi") = createRequire(import.meta.url)("userfaultfd-napi")
type Descriptor = ReturnType<typeof addon.connectUnix>

export interface Cut {
  readonly direction: "to the destination" | "to the source"
  readonly after: number
  readonly kind: "closed" | "halved"
}

export interface Relay {
  /** Where the source connects to. */
  readonly uri: string
  /** What was forwarded to the destination, as far as it tells whether the switchover was. */
  readonly forwarded: () => Buffer
  /** Milliseconds of the clock when the link was cut; `undefined` when it never came to that. */
  readonly cutAt: () => number | undefined
  readonly close: () => void
}

const AGAIN = -11
/** Enough for every framing of these tests. */
const KEPT = 4096

/** Listens in `dir`, or on a TCP port, for one source that it joins to `to`. */
export const start = (dir: string, to: string, { after, direction, kind }: Cut): Relay => {
  const unix = to.startsWith("unix:")
  const path = join(dir, `relay-${++serial}`)
  const listener = unix ? addon.listenUnix(path, 1) : addon.listenTcp("127.0.0.1", 0, 1)
  const bound = addon.localAddress(listener)
  const uri = unix || bound.family === "unix" ? `unix:${path}` : `tcp:127.0.0.1:${bound.port}`
  const kept: Array<Buffer> = []
  let open: Array<Descriptor> = [listener]
  let cutAt: number | undefined
  // A poller has a duplicate of its descriptor: while it waits, closing the descriptor closes nothing.
  const waiting = new Set<() => void>()
  const ready = (descriptor: Descriptor, events: number): Promise<void> =>
    new Promise((resolve) => {
      const poller = new addon.Poller(descriptor)
      const done = () => {
        waiting.delete(done)
        poller.close()
        resolve()
      }
      waiting.add(done)
      poller.watch(events, done)
    })
  const connect = async (): Promise<Descriptor> => {
    if (unix) return addon.connectUnix(to.slice("unix:".length))
    const descriptor = addon.connectTcp("127.0.0.1", Number(to.split(":").at(-1)))
    open.push(descriptor)
    await ready(descriptor, addon.constants.WRITABLE)
    return descriptor
  }
  const close = () => {
    for (const done of waiting) done()
    for (const descriptor of open) descriptor.close()
    open = []
    rmSync(path, { force: true })
  }
  onTestFinished(close)

  /** Forwards until the end of `from`, or the cut. */
  const forward = async (from: Descriptor, onto: Descriptor, limit: number, keep: boolean) => {
    const buffer = Buffer.alloc(64 * 1024)
    let left = limit
    while (open.length > 0) {
      if (left === 0) {
        cutAt = performance.now()
        if (kind === "closed") close()
        else addon.shutdown(onto, addon.constants.SHUT_WR)
        return
      }
      const n = addon.read(from, buffer, 0, Math.min(left, buffer.length))
      if (n === AGAIN) {
        await ready(from, addon.constants.READABLE)
        continue
      }
      if (n <= 0) {
        if (open.length > 0) addon.shutdown(onto, addon.constants.SHUT_WR)
        return
      }
      left -= n
      if (keep && kept.length < KEPT) kept.push(Buffer.from(buffer.subarray(0, n)))
      for (let at = 0; at < n && open.length > 0;) {
        const written = addon.write(onto, buffer, at, n - at)
        if (written > 0) at += written
        else if (written === AGAIN) await ready(onto, addon.constants.WRITABLE)
        else return
      }
    }
  }

  const run = async () => {
    await ready(listener, addon.constants.READABLE)
    const source = addon.accept(listener)!
    open.push(source)
    const destination = await connect()
    open.push(destination)
    for (const descriptor of [source, destination]) addon.setNonBlocking(descriptor, true)
    const limit = (which: Cut["direction"]) => which === direction ? after : Infinity
    await Promise.all([
      forward(source, destination, limit("to the destination"), true),
      forward(destination, source, limit("to the source"), false)
    ])
    close()
  }
  // What a closed descriptor throws is the end of the relay.
  void run().catch(close)
  return { uri, forwarded: () => Buffer.concat(kept), cutAt: () => cutAt, close }
}

let serial = 0
