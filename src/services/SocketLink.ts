/**
 * The source's link over Node's own sockets, for hosts without the addon: slower and not transferable, but enough to
 * send a guest away. Both directions are bounded: reading stops at a full buffer, writing at a full socket.
 */
import * as Effect from "effect/Effect"
import * as net from "node:net"
import { InvalidArgument, LinkFailed } from "../MigrationError.ts"
import * as ConnectFailure from "./ConnectFailure.ts"
import type { Endpoint } from "./Endpoint.ts"
import { AGAIN, type Link } from "./Link.ts"

/** Bytes held for the reader before the socket is paused. Requests are small. */
const READ_LIMIT = 256 * 1024
/** Bytes accepted from the writer before it has to wait: a page asked for must not queue behind more. */
const WRITE_LIMIT = 64 * 1024
const EPIPE = -32
const ECONNRESET = -104

const fromSocket = (socket: net.Socket, peer: string): Link => {
  const pending: Array<Uint8Array> = []
  let held = 0
  let ended = false
  let broken = 0
  let closed = false
  let scheduled = false
  let readable = false
  let writable = false
  let onReady: (readable: boolean, writable: boolean) => void = () => {}
  const canRead = () => held > 0 || ended || broken !== 0
  const canWrite = () => broken !== 0 || socket.writableLength < WRITE_LIMIT
  // Level-triggered like the kernel's readiness: asks again on the next turn while interest and condition both hold.
  const tell = () => {
    if (closed || scheduled || !((readable && canRead()) || (writable && canWrite()))) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      if (closed) return
      const r = readable && canRead()
      const w = writable && canWrite()
      if (r || w) onReady(r, w)
      tell()
    })
  }
  socket.on("data", (chunk: Uint8Array) => {
    pending.push(chunk)
    held += chunk.length
    if (held >= READ_LIMIT) socket.pause()
    tell()
  })
  socket.on("end", () => {
    ended = true
    tell()
  })
  socket.on("error", (error: NodeJS.ErrnoException) => {
    broken = typeof error.errno === "number" && error.errno < 0 ? error.errno : ECONNRESET
    tell()
  })
  socket.on("close", () => {
    if (!ended && broken === 0) broken = ECONNRESET
    tell()
  })
  socket.on("drain", tell)
  return {
    read: (into, offset, length) => {
      const chunk = pending[0]
      if (chunk === undefined) return broken !== 0 ? broken : ended ? 0 : AGAIN
      const n = Math.min(length, chunk.length)
      into.set(n === chunk.length ? chunk : chunk.subarray(0, n), offset)
      if (n === chunk.length) pending.shift()
      else pending[0] = chunk.subarray(n)
      held -= n
      if (held < READ_LIMIT && socket.isPaused()) socket.resume()
      return n
    },
    write: (from, offset, length) => {
      if (broken !== 0) return broken
      if (closed || socket.destroyed) return EPIPE
      if (!canWrite()) return AGAIN
      socket.write(from.slice(offset, offset + length), () => tell())
      return length
    },
    attach: (callback) => {
      onReady = callback
    },
    watch: (r, w) => {
      readable = r
      writable = w
      tell()
    },
    unsent: () => socket.writableLength,
    unsentIsUnread: false,
    close: () => {
      closed = true
      socket.destroy()
    },
    release: () => {},
    descriptor: undefined,
    peer
  }
}

/** Connects a socket of Node's to `tcp:`, `unix:` or an inherited `fd:`. */
export const connect = (endpoint: Endpoint, uri: string): Effect.Effect<Link, InvalidArgument | LinkFailed> => {
  if (endpoint._tag === "Fd") {
    return Effect.try({
      try: () => fromSocket(new net.Socket({ fd: endpoint.fd, readable: true, writable: true }), uri),
      catch: () =>
        new InvalidArgument({
          detail: `${uri} is not a connected stream socket (EINVAL): give one that is open for reading and writing`
        })
    })
  }
  return Effect.callback<Link, LinkFailed>((resume) => {
    const socket = endpoint._tag === "Tcp"
      ? net.connect({ host: endpoint.host, port: endpoint.port, noDelay: true })
      : net.connect({ path: endpoint.path })
    socket.once("connect", () => {
      socket.removeAllListeners("error")
      resume(Effect.sync(() => fromSocket(socket, uri)))
    })
    socket.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(
        error.code === "ENOTFOUND" && endpoint._tag === "Tcp"
          ? ConnectFailure.toResolve(endpoint.host, error.code)
          : ConnectFailure.toConnect(uri, error.code ?? "EIO", error.message)
      )))
    return Effect.sync(() => socket.destroy())
  })
}
