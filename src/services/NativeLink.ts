/**
 * Links over raw descriptors owned by the addon: connect, listen, and the link itself. A descriptor can be handed to the
 * umem daemon with the stream at any byte, which no `net.Socket` allows.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as dns from "node:dns/promises"
import * as fs from "node:fs"
import type { Descriptor, SystemError } from "userfaultfd-napi"
import { InvalidArgument, LinkFailed, Refused, type Unsupported } from "../MigrationError.ts"
import type { Addon } from "../native/Binding.ts"
import * as ConnectFailure from "./ConnectFailure.ts"
import type { Endpoint } from "./Endpoint.ts"
import { type Link, markPlain } from "./Link.ts"
import type { Listener } from "./Links.ts"

/** Unix sockets: a page asked for waits behind at most this much background data (default buffers make it 2 × as long). */
const UNIX_SEND_BUFFER = 128 * 1024
/** TCP: bytes not yet sent that the socket accepts; keeps background data out of the way of requested pages. */
const TCP_NOT_SENT_LOW_WATER = 16 * 1024
/** TCP receiver: enough for the background stream at the rate a daemon installs pages. */
const TCP_RECEIVE_BUFFER = 256 * 1024

const listenFailed = (uri: string, cause: unknown) => {
  const { code, message } = cause as SystemError
  return ConnectFailure.toListen(uri, code ?? "EIO", message)
}

/**
 * The link over a connected stream socket, which it owns from now on. `acknowledges`: the peer waits until what it has
 * sent is acknowledged, as sources do before the switchover; it costs a system call a read.
 */
export const fromDescriptor = (addon: Addon, descriptor: Descriptor, peer: string, acknowledges = false): Link => {
  const { READABLE, WRITABLE } = addon.constants
  const { family } = addon.describe(descriptor)
  addon.setNonBlocking(descriptor, true)
  if (family === "tcp") {
    addon.setSocketOptions(descriptor, {
      noDelay: true,
      notSentLowWater: TCP_NOT_SENT_LOW_WATER,
      receiveBuffer: TCP_RECEIVE_BUFFER
    })
  } else if (family === "unix") addon.setSocketOptions(descriptor, { sendBuffer: UNIX_SEND_BUFFER })
  const poller = new addon.Poller(descriptor)
  let onReady: (readable: boolean, writable: boolean) => void = () => {}
  let watched = 0
  const ready = (status: number, events: number) =>
    status < 0 ? onReady(true, false) : onReady((events & READABLE) !== 0, (events & WRITABLE) !== 0)
  const close = () => {
    watched = 0
    onReady = () => {}
    poller.close()
    descriptor.close()
  }
  const link: Link = {
    read: (into, offset, length) => {
      const n = addon.read(descriptor, into, offset, length)
      // Delayed acknowledgements would hold up a source that waits for its last bytes to be taken.
      if (acknowledges && family === "tcp" && n > 0) addon.setSocketOptions(descriptor, { quickAck: true })
      return n
    },
    write: (from, offset, length) => addon.write(descriptor, from, offset, length),
    attach: (callback) => {
      onReady = callback
    },
    watch: (readable, writable) => {
      const events = (readable ? READABLE : 0) | (writable ? WRITABLE : 0)
      if (events === watched) return
      watched = events
      poller.watch(events, ready)
    },
    unsent: () => addon.unsentBytes(descriptor),
    unsentIsUnread: family === "unix",
    close,
    release: close,
    descriptor,
    peer
  }
  return markPlain(link, descriptor)
}

/** Takes over a stream socket open for reading and writing; anything else is EINVAL. */
export const adopt = (
  addon: Addon,
  descriptor: Descriptor,
  name: string
): Effect.Effect<Link, InvalidArgument> =>
  Effect.suspend(() => {
    const { access, kind, listening, socketType } = addon.describe(descriptor)
    if (kind !== "socket" || socketType !== addon.constants.SOCK_STREAM || access !== "rw" || listening) {
      const is = kind === "socket"
        ? (listening ? "a listening socket" : `a socket of type ${socketType}`)
        : `a ${kind} (${access})`
      descriptor.close()
      return Effect.fail(
        new InvalidArgument({
          detail: `${name} is ${is} (EINVAL): a connected stream socket open for reading and writing is needed`
        })
      )
    }
    return Effect.succeed(fromDescriptor(addon, descriptor, name))
  })

/** Takes over an inherited descriptor number. */
export const adoptNumber = (addon: Addon, fd: number): Effect.Effect<Link, InvalidArgument> =>
  Effect.suspend(() => {
    const taken = Result.try({ try: () => addon.Descriptor.adopt(fd), catch: (e) => e as SystemError })
    return Result.isFailure(taken)
      ? Effect.fail(
        new InvalidArgument({
          detail: `fd:${fd} is not an open descriptor (${taken.failure.code}): open it before, or use tcp: or unix:`
        })
      )
      : adopt(addon, taken.success, `fd:${fd}`)
  })

const resolve = (host: string): Effect.Effect<string, LinkFailed> =>
  Effect.tryPromise({
    try: () => dns.lookup(host).then(({ address }) => address),
    catch: (e) => ConnectFailure.toResolve(host, (e as SystemError).code ?? "ENOTFOUND")
  })

/** Waits until a descriptor is ready for `events`. The poller is closed in every case. */
const ready = (addon: Addon, descriptor: Descriptor, events: number): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const poller = new addon.Poller(descriptor)
    poller.watch(events, () => {
      poller.close()
      resume(Effect.void)
    })
    return Effect.sync(() => poller.close())
  })

const closing = (descriptor: Descriptor) => Effect.sync(() => descriptor.close())

/** Connects; nothing is left open when it fails or is interrupted. */
export const connect = (
  addon: Addon,
  endpoint: Endpoint,
  uri: string
): Effect.Effect<Link, InvalidArgument | LinkFailed> => {
  const failed = (cause: unknown) => {
    const { code, message } = cause as SystemError
    return ConnectFailure.toConnect(uri, code ?? "EIO", message)
  }
  switch (endpoint._tag) {
    case "Fd":
      return adoptNumber(addon, endpoint.fd)
    case "Unix":
      return Effect.try({ try: () => fromDescriptor(addon, addon.connectUnix(endpoint.path), uri), catch: failed })
    case "Tcp":
      return Effect.gen(function*() {
        const address = yield* resolve(endpoint.host)
        const descriptor = yield* Effect.try({ try: () => addon.connectTcp(address, endpoint.port), catch: failed })
        return yield* ready(addon, descriptor, addon.constants.WRITABLE).pipe(
          Effect.andThen(Effect.suspend(() => {
            const errno = addon.socketError(descriptor)
            if (errno === 0) return Effect.sync(() => fromDescriptor(addon, descriptor, uri))
            const code = addon.errnoName(errno)
            return Effect.fail(ConnectFailure.toConnect(uri, code))
          })),
          Effect.onError(() => closing(descriptor))
        )
      })
  }
}

const inode = (path: string) => fs.lstatSync(path, { throwIfNoEntry: false })

/** Binds a unix path: a live listener there is left alone, a stale socket file is replaced, any other file is refused. */
const bindUnix = (addon: Addon, path: string): Effect.Effect<Descriptor, Refused | LinkFailed> =>
  Effect.gen(function*() {
    const existing = inode(path)
    if (existing !== undefined && !existing.isSocket()) {
      return yield* new Refused({ detail: `${path} exists and is not a socket: it is left alone; choose another path` })
    }
    const state = addon.probeUnix(path)
    if (state === "live") {
      return yield* new Refused({
        detail: `another process listens at ${path} (EADDRINUSE): end it or choose another path`
      })
    }
    return yield* Effect.try({
      try: () => {
        if (state === "stale") fs.unlinkSync(path)
        return addon.listenUnix(path, 1)
      },
      catch: (cause) => listenFailed(`unix:${path}`, cause)
    })
  })

const accepting = (addon: Addon, descriptor: Descriptor): Effect.Effect<Descriptor, LinkFailed> =>
  Effect.gen(function*() {
    while (true) {
      const taken = yield* Effect.try({
        try: () => addon.accept(descriptor),
        catch: (cause) => listenFailed("the socket that was open", cause)
      })
      if (taken !== null) return taken
      yield* ready(addon, descriptor, addon.constants.READABLE)
    }
  })

/** Listens for one connection. The socket file is removed with the listener, and only if it is still ours. */
export const listen = (
  addon: Addon,
  endpoint: Endpoint
): Effect.Effect<Listener, InvalidArgument | Refused | LinkFailed | Unsupported, Scope.Scope> =>
  Effect.gen(function*() {
    switch (endpoint._tag) {
      case "Fd": {
        const link = yield* Effect.acquireRelease(adoptNumber(addon, endpoint.fd), (l) => Effect.sync(() => l.close()))
        return { uri: `fd:${endpoint.fd}`, accept: Effect.succeed(link), close: Effect.void }
      }
      case "Unix": {
        const { path } = endpoint
        const descriptor = yield* bindUnix(addon, path)
        const ours = inode(path)?.ino
        const close = Effect.sync(() => {
          if (descriptor.fd < 0) return
          if (inode(path)?.ino === ours) fs.rmSync(path, { force: true })
          descriptor.close()
        })
        yield* Effect.addFinalizer(() => close)
        return {
          uri: `unix:${path}`,
          accept: Effect.map(accepting(addon, descriptor), (d) => fromDescriptor(addon, d, `unix:${path}`)),
          close
        }
      }
      case "Tcp": {
        const address = yield* resolve(endpoint.host)
        const descriptor = yield* Effect.try({
          try: () => addon.listenTcp(address, endpoint.port, 1),
          catch: (cause) => {
            return (cause as SystemError).code === "EADDRINUSE"
              ? new Refused({
                detail:
                  `another process listens at tcp:${endpoint.host}:${endpoint.port} (EADDRINUSE): choose another port`
              })
              : listenFailed(`tcp:${endpoint.host}:${endpoint.port}`, cause)
          }
        })
        yield* Effect.addFinalizer(() => closing(descriptor))
        const bound = addon.localAddress(descriptor)
        const port = bound.family === "unix" ? endpoint.port : bound.port
        const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host
        const uri = `tcp:${host}:${port}`
        return {
          uri,
          accept: Effect.map(accepting(addon, descriptor), (d) => fromDescriptor(addon, d, uri, true)),
          close: closing(descriptor)
        }
      }
    }
  })
