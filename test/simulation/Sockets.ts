/**
 * Stream sockets between simulated processes: bounded, late, taking and giving as few bytes as they like, and breakable at
 * any byte. An end may be held by several processes and is closed with its last holder; closed with bytes unread it
 * resets the other side, as TCP and unix sockets do.
 */
import { AGAIN, type Link } from "../../src/services/Link.ts"
import type { Process, World } from "./World.ts"

const EBADF = -9
const ECONNRESET = -104
const EPIPE = -32

export interface Nature {
  /** Bytes the direction of whoever connected holds, and the other one. */
  readonly capacity: number
  readonly back: number
  /** Milliseconds until what was written can be read, and how much more that may be. */
  readonly latency: number
  readonly jitter: number
  /** Bytes one read or write takes at most; drawn anew each time. */
  readonly mostRead: number
  readonly mostWritten: number
  /** How likely a read comes just before what could be read after it. */
  readonly early: number
  /** Whether bytes count as sent when the peer has read them (unix), or when they are with its kernel (TCP). */
  readonly unix: boolean
}

export const plain: Nature = {
  capacity: 64 * 1024,
  back: 64 * 1024,
  latency: 0,
  jitter: 0,
  mostRead: 2 ** 20,
  mostWritten: 2 ** 20,
  early: 0,
  unix: true
}

/** What happens to one direction when its `byte`-th byte has been written. */
export interface Cut {
  readonly byte: number
  /** `reset`: both directions break. `end`: this direction ends, half open. `silence`: nothing passes for `millis`. */
  readonly kind: "reset" | "end" | "silence"
  readonly millis: number
  /** Whether a silence ends with a reset. */
  readonly breaks: boolean
}

/** One direction of a connection. */
export interface Half {
  readonly capacity: number
  chunks: Array<{ readonly bytes: Uint8Array; at: number; readonly due: number }>
  held: number
  written: number
  lastDue: number
  ended: boolean
  broken: boolean
  /** Nothing is delivered before this. */
  silentUntil: number
  cut: Cut | undefined
  /** Sees every byte that is written. */
  onWrite: ((bytes: Uint8Array) => void) | undefined
}

export interface End {
  readonly incoming: Half
  readonly outgoing: Half
  holders: number
}

export interface Connection {
  readonly ends: readonly [End, End]
  readonly nature: Nature
}

const half = (capacity: number): Half => ({
  capacity,
  chunks: [],
  held: 0,
  written: 0,
  lastDue: 0,
  ended: false,
  broken: false,
  silentUntil: 0,
  cut: undefined,
  onWrite: undefined
})

export const connect = (nature: Nature): Connection => {
  const forth = half(nature.capacity)
  const back = half(nature.back)
  return {
    nature,
    ends: [{ incoming: back, outgoing: forth, holders: 0 }, { incoming: forth, outgoing: back, holders: 0 }]
  }
}

const breakBoth = (end: End) => {
  for (const one of [end.incoming, end.outgoing]) one.broken = true
}

/** Called when a cut comes to be. */
export type OnCut = (cut: Cut) => void

/** A descriptor of one end, in one process. */
export const open = (
  world: World,
  process: Process,
  { nature }: Connection,
  end: End,
  peer: string,
  onCut: OnCut = () => {}
): Link => {
  const { incoming, outgoing } = end
  const { random } = world
  let onReady: (readable: boolean, writable: boolean) => void = () => {}
  let wantsRead = false
  let wantsWrite = false
  let closed = false
  end.holders++

  const arrived = () => {
    const chunk = incoming.chunks[0]
    return chunk !== undefined && Math.max(chunk.due, incoming.silentUntil) <= world.now
  }
  const atEnd = () => incoming.broken || incoming.ended
  const over = () => atEnd() && (incoming.broken || incoming.silentUntil <= world.now) && incoming.chunks.length === 0
  const readable = () => arrived() || over()
  const writable = () => outgoing.broken || outgoing.held < outgoing.capacity
  const source = {
    ready: () => (wantsRead && readable()) || (wantsWrite && writable()),
    fire: () => onReady(wantsRead && readable(), wantsWrite && writable())
  }
  process.sources.push(source)

  const cutNow = (cut: Cut) => {
    outgoing.cut = undefined
    onCut(cut)
    switch (cut.kind) {
      case "reset":
        breakBoth(end)
        // What has not arrived is lost; what the other side's kernel has can still be read.
        for (const one of [incoming, outgoing]) one.chunks = one.chunks.filter(({ due }) => due <= world.now)
        break
      case "end":
        outgoing.ended = true
        break
      case "silence":
        outgoing.silentUntil = world.now + cut.millis * 1e6
        incoming.silentUntil = outgoing.silentUntil
        world.at(outgoing.silentUntil, undefined, () => {
          if (cut.breaks) breakBoth(end)
        })
        break
    }
  }

  const close = () => {
    if (closed) return
    closed = true
    const at = process.sources.indexOf(source)
    if (at >= 0) process.sources.splice(at, 1)
    process.open.delete(link)
    if (--end.holders > 0) return
    outgoing.ended = true
    if (incoming.chunks.length > 0) breakBoth(end)
    incoming.chunks = []
    incoming.held = 0
    // Nobody will ever read what comes this way.
    incoming.broken = true
  }

  const link: Link = {
    peer,
    descriptor: undefined,
    unsentIsUnread: nature.unix,
    read: (into, offset, length) => {
      if (closed) return EBADF
      const chunk = incoming.chunks[0]
      if (!arrived() || chunk === undefined) {
        if (!over()) return AGAIN
        return incoming.broken ? ECONNRESET : 0
      }
      if (nature.early > 0 && random.chance(nature.early)) return AGAIN
      const most = Math.min(length, 1 + random.below(nature.mostRead))
      let n = 0
      while (n < most && arrived()) {
        const first = incoming.chunks[0]!
        const part = Math.min(most - n, first.bytes.length - first.at)
        into.set(first.bytes.subarray(first.at, first.at + part), offset + n)
        first.at += part
        n += part
        if (first.at === first.bytes.length) incoming.chunks.shift()
      }
      incoming.held -= n
      return n
    },
    write: (from, offset, length) => {
      if (closed) return EBADF
      if (outgoing.broken) return incoming.broken ? ECONNRESET : EPIPE
      if (outgoing.ended && outgoing.cut === undefined) return length
      let n = Math.min(length, outgoing.capacity - outgoing.held, 1 + random.below(nature.mostWritten))
      if (n <= 0) return AGAIN
      const cut = outgoing.cut
      if (cut !== undefined) n = Math.min(n, Math.max(0, cut.byte - outgoing.written))
      if (n > 0) {
        const delay = (nature.latency + (nature.jitter > 0 ? random.below(nature.jitter * 1000) / 1000 : 0)) * 1e6
        const due = Math.max(outgoing.lastDue, world.now + delay)
        outgoing.lastDue = due
        outgoing.chunks.push({ bytes: from.slice(offset, offset + n), at: 0, due })
        outgoing.held += n
        outgoing.written += n
        outgoing.onWrite?.(from.subarray(offset, offset + n))
        if (due > world.now) world.at(due, undefined, () => {})
      }
      if (cut !== undefined && outgoing.written >= cut.byte) {
        cutNow(cut)
        if (n === 0) return link.write(from, offset, length)
      }
      return n
    },
    attach: (callback) => {
      onReady = callback
    },
    watch: (r, w) => {
      // As a poller that was closed: asking it for nothing is all that may be asked.
      if (closed && (r || w)) throw new Error(`${process.name} watches a link it has closed`)
      wantsRead = r
      wantsWrite = w
    },
    unsent: () => {
      if (closed) return EBADF
      if (outgoing.broken) return ECONNRESET
      if (nature.unix) return outgoing.held
      let n = 0
      for (const { at, bytes, due } of outgoing.chunks) {
        if (Math.max(due, outgoing.silentUntil) > world.now) n += bytes.length - at
      }
      return n
    },
    close,
    release: close
  }
  process.open.set(link, { what: `the link to ${peer}`, close })
  return link
}
