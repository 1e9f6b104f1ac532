/**
 * The umem daemon as the guest's process sees it: a process of its own with two sockets. The *channel* carries the pipe
 * protocol and nothing else. Over the *handover* socket (SEQPACKET) the daemon says that it has started, and then gets
 * descriptors, block table and the bytes already read from the link.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import * as nodeModule from "node:module"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import type { Region } from "userfaultfd-napi"
import { DaemonFailed, Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import * as DaemonCounters from "./DaemonCounters.ts"
import * as Handover from "./Handover.ts"
import type { Link } from "./Link.ts"
import * as NativeLink from "./NativeLink.ts"
import { PageStates } from "./PageStates.ts"
import { Settings } from "./Settings.ts"
import type { Registration } from "./Userfaultfd.ts"

/** What the daemon takes over at the switchover. */
export interface HandoverRequest {
  readonly registration: Registration
  readonly link: Link
  /** Bytes read from the link behind the switchover's byte. */
  readonly remainder: Uint8Array
  /** Bytes of a target page. */
  readonly targetPageSize: number
  /** The `--postcopy-flags`. */
  readonly flags: number
  /** Microseconds that the daemon may wait without sleeping; 0: never. */
  readonly busyPollMicros: number
}

export interface UmemDaemonHandle {
  /** The pipe protocol's bytes. Closed by whoever runs the handler; also at the end of the scope. */
  readonly channel: Link
  readonly counters: DaemonCounters.DaemonCounters
  /** What has become of each page; from the handover on. */
  readonly states: () => PageStates | undefined
  readonly handover: (request: HandoverRequest) => Effect.Effect<void, DaemonFailed>
  /** Completes when the process is gone: how it ended, in words. */
  readonly exited: Effect.Effect<string>
  /** For messages and tests. */
  readonly pid: number
}

export interface DaemonProcessShape {
  /** Starts a daemon and waits until it has finished importing. When the scope ends its channel is closed, which ends it. */
  readonly start: Effect.Effect<UmemDaemonHandle, DaemonFailed | Unsupported, Scope.Scope>
}

/** The daemon's entry, beside this file's parent: `.ts` unbuilt, `.js` built. */
const entry = fileURLToPath(
  new URL(`../daemon${import.meta.url.slice(import.meta.url.lastIndexOf("."))}`, import.meta.url)
)

/** A daemon allocates little after its start: a small young generation is enough, and saves 10 MiB. */
const LEAN = ["--max-semi-space-size=1"]

/** What this process has compiled already, which is nearly all of the daemon's code, where there is a cache. */
const cached = (): Readonly<Record<string, string>> => {
  const directory = nodeModule.getCompileCacheDir?.()
  if (directory === undefined) return {}
  nodeModule.flushCompileCache()
  // Given as it was when it was enabled: without the part that names Node's version, which Node adds.
  return { NODE_COMPILE_CACHE: dirname(directory) }
}

const native: DaemonProcessShape = {
  start: Effect.gen(function*() {
    const addon = Binding.load()
    if (addon === undefined) return yield* new Unsupported({ detail: Binding.failure() })
    const { handshakeMillis } = yield* Settings
    const [channelHere, channelThere] = addon.socketpair(addon.constants.SOCK_STREAM)
    const [handoverHere, handoverThere] = addon.socketpair(addon.constants.SOCK_SEQPACKET)
    const shared = addon.Region.memfd("postcopy-counters", DaemonCounters.BYTES)
    const channel = NativeLink.fromDescriptor(addon, channelHere, "the umem daemon")
    let map: Region | undefined
    let states: PageStates | undefined
    const gone = Deferred.makeUnsafe<string>()
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        channel.close()
        handoverHere.close()
        shared.close()
        map?.close()
      })
    )
    const child = yield* Effect.try({
      try: () =>
        spawn(process.execPath, [...LEAN, entry], {
          // A session of its own: Ctrl-C at the terminal reaches the whole foreground group, and must not reach this.
          detached: true,
          env: { ...process.env, ...cached() },
          stdio: ["ignore", "ignore", "inherit", channelThere.fd, handoverThere.fd]
        }),
      catch: (cause) => new DaemonFailed({ detail: `cannot start the umem daemon: ${(cause as Error).message}` })
    }).pipe(Effect.ensuring(Effect.sync(() => {
      channelThere.close()
      handoverThere.close()
    })))
    child.once("error", (error) => Deferred.doneUnsafe(gone, Effect.succeed(error.message)))
    child.once(
      "exit",
      (code, signal) =>
        Deferred.doneUnsafe(gone, Effect.succeed(signal === null ? `exit status ${code}` : `signal ${signal}`))
    )
    const started = yield* Handover.awaitReady(addon, handoverHere).pipe(
      Effect.raceFirst(Effect.flatMap(
        Deferred.await(gone),
        (how) => Effect.fail(new DaemonFailed({ detail: `the umem daemon ended while starting: ${how}` }))
      )),
      Effect.timeoutOrElse({
        duration: handshakeMillis,
        orElse: () =>
          Effect.fail(new DaemonFailed({ detail: `the umem daemon did not start within ${handshakeMillis} ms` }))
      }),
      Effect.onError(() => Effect.sync(() => child.kill("SIGKILL")))
    )
    void started
    // The process belongs to the channel: it must not keep this one alive on its own.
    child.unref()
    return {
      channel,
      counters: new DaemonCounters.DaemonCounters(shared.buffer()),
      pid: child.pid ?? -1,
      exited: Deferred.await(gone),
      states: () => states,
      handover: ({ busyPollMicros, flags, link, registration, remainder, targetPageSize }) =>
        Effect.suspend(() => {
          const pages = PageStates.pagesOf(registration.blocks, targetPageSize)
          map = addon.Region.memfd("postcopy-pages", Math.ceil(pages / addon.pageSize) * addon.pageSize)
          states = new PageStates(pages, map.buffer())
          const counted = shared.descriptor()
          const mapped = map.descriptor()
          if (
            registration.descriptor === undefined || link.descriptor === undefined || counted === null ||
            mapped === null
          ) {
            return Effect.fail(new DaemonFailed({ detail: "there is no descriptor to hand over" }))
          }
          const sent = Handover.send(
            addon,
            handoverHere,
            { blocks: registration.blocks, busyPollMicros, flags, targetPageSize },
            remainder,
            {
              uffd: registration.descriptor,
              link: link.descriptor,
              counters: counted,
              states: mapped,
              memfds: registration.memfds
            }
          )
          counted.close()
          mapped.close()
          return sent < 0
            ? Effect.fail(
              new DaemonFailed({ detail: `cannot hand over to the umem daemon: ${addon.errnoName(-sent)}` })
            )
            : Effect.void
        })
    }
  })
}

export const DaemonProcess: Context.Reference<DaemonProcessShape> = Context.Reference(
  "postcopy/services/DaemonProcess",
  { defaultValue: () => native }
)
