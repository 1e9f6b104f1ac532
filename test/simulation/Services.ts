/**
 * The services of the engine over a simulated world: sockets, userfaultfd, the daemon's process, the guest's memory and
 * threads. They keep the contracts of the real ones and count what is open, so that a leak is seen.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { DaemonFailed, LinkFailed, Refused } from "../../src/MigrationError.ts"
import { answerOver, sendOver } from "../../src/services/AnswerReference.ts"
import * as DaemonCounters from "../../src/services/DaemonCounters.ts"
import { DaemonProcess, type DaemonProcessShape } from "../../src/services/DaemonProcess.ts"
import { GuestMemory, type GuestMemoryShape, RANGE_WORDS, type SourceBlock } from "../../src/services/GuestMemory.ts"
import { GuestThreads } from "../../src/services/GuestThreads.ts"
import type { Link } from "../../src/services/Link.ts"
import { Links, type LinksShape } from "../../src/services/Links.ts"
import { PageStates } from "../../src/services/PageStates.ts"
import { Prefault, type PrefaultShape, type Ranges } from "../../src/services/Prefault.ts"
import { defaults, Settings } from "../../src/services/Settings.ts"
import { type Registration, Userfaultfd, type UserfaultfdShape } from "../../src/services/Userfaultfd.ts"
import * as Daemon from "./Daemon.ts"
import type { Guest } from "./GuestThreads.ts"
import { Violation } from "./History.ts"
import type { Kernel, Waiter } from "./Kernel.ts"
import type { Scenario } from "./Scenario.ts"
import * as Sockets from "./Sockets.ts"
import type { Process, Thread, World } from "./World.ts"

/** What stays open when a guest is parked. */
export const PARKED = "the userfaultfd of a parked guest"

/** Who listens where, and what a link is one end of. */
export class Network {
  readonly listening = new Map<string, (connection: Sockets.Connection) => void>()
  readonly ends = new WeakMap<Link, readonly [Sockets.Connection, Sockets.End]>()
  /** Prepares each connection between source and destination: cuts, and who listens in. */
  prepare: (connection: Sockets.Connection) => void = () => {}
  onCut: Sockets.OnCut = () => {}
}

export interface Options {
  readonly world: World
  readonly scenario: Scenario
  readonly network: Network
  readonly kernel: Kernel
  readonly guest: Guest
  readonly count: (what: string) => void
  readonly violated: (violation: Violation) => void
  /** The daemon is there; told once. */
  readonly onDaemon: (process: Process) => void
  readonly daemonStarts: boolean
}

const links = (process: Process, { network, scenario, world }: Options): LinksShape => ({
  connect: (to) =>
    Effect.callback((resume) => {
      const uri = String(to)
      let interrupted = false
      world.after(world.random.below(400) / 1000, undefined, () =>
        process.scheduleTask(() => {
          if (interrupted) return
          const accept = network.listening.get(uri)
          if (accept === undefined) {
            resume(Effect.fail(new LinkFailed({ code: "ECONNREFUSED", detail: `nobody listens at ${uri}` })))
            return
          }
          network.listening.delete(uri)
          const connection = Sockets.connect(scenario.link)
          network.prepare(connection)
          const link = Sockets.open(world, process, connection, connection.ends[0], uri, network.onCut)
          accept(connection)
          resume(Effect.succeed(link))
        }))
      return Effect.sync(() => {
        interrupted = true
      })
    }),
  listen: (uri) =>
    Effect.gen(function*() {
      if (network.listening.has(uri)) return yield* new Refused({ detail: `${uri} is in use` })
      const arrived = Deferred.makeUnsafe<Sockets.Connection>()
      const key = {}
      let waiting: Sockets.Connection | undefined
      const shut = () => {
        process.open.delete(key)
        network.listening.delete(uri)
        // Whoever waits to be accepted is reset.
        if (waiting !== undefined) {
          for (const { incoming, outgoing } of waiting.ends) incoming.broken = outgoing.broken = true
        }
        waiting = undefined
      }
      process.open.set(key, { what: `the listener at ${uri}`, close: shut })
      network.listening.set(uri, (connection) => {
        waiting = connection
        process.scheduleTask(() => Deferred.doneUnsafe(arrived, Effect.succeed(connection)))
      })
      const close = Effect.sync(shut)
      yield* Effect.addFinalizer(() => close)
      return {
        uri,
        accept: Effect.map(Deferred.await(arrived), (connection) => {
          waiting = undefined
          const link = Sockets.open(world, process, connection, connection.ends[1], "the source", network.onCut)
          network.ends.set(link, [connection, connection.ends[1]])
          return link
        }),
        close
      }
    })
})

/** The source's view of the guest's memory. Reading it while the guest runs, or after it was let go of, is a violation. */
const guestMemory = (process: Process, { guest, kernel, scenario, violated }: Options): GuestMemoryShape => ({
  open: (blocks) =>
    Effect.forEach(blocks, ({ idstr, length }) => {
      const block = kernel.block(idstr)
      const scratch = new Uint8Array(64 * 1024)
      let open = true
      const read = (offset: number, into: Uint8Array, at: number, bytes: number): number => {
        if (!open) violated(new Violation("the source read memory that it had let go of"))
        if (guest.running) violated(new Violation("the source read memory of a guest that ran"))
        for (let done = 0; done < bytes;) {
          const page = Math.floor((offset + done) / kernel.pageSize)
          const within = (offset + done) % kernel.pageSize
          const part = Math.min(bytes - done, kernel.pageSize - within)
          const content = block.pages[page]
          if (content === undefined) into.fill(0, at + done, at + done + part)
          else into.set(content.subarray(within, within + part), at + done)
          done += part
        }
        return bytes
      }
      return Effect.acquireRelease(
        Effect.sync((): SourceBlock => {
          process.open.set(block, { what: `the region of ${idstr}`, close: () => {} })
          const fillByte = (offset: number, bytes: number) => {
            read(offset, scratch, 0, bytes)
            const first = scratch[0]!
            for (let i = 1; i < bytes; i++) if (scratch[i] !== first) return -1
            return first
          }
          const gather: NonNullable<SourceBlock["gather"]> = (ranges, count, into, at) => {
            let end = at
            for (let i = 0; i < count; i++) {
              const range = ranges.subarray(i * RANGE_WORDS, (i + 1) * RANGE_WORDS)
              const [offset, bytes, gap] = range as unknown as [number, number, number]
              const byte = fillByte(offset, bytes)
              range[3] = byte
              if (byte < 0) read(offset, into, end + gap, bytes)
              else into[end + gap] = byte
              end += gap + (byte < 0 ? bytes : 1)
            }
            return count
          }
          const plain = { idstr, length, read, fillByte }
          return scenario.quick ? { ...plain, gather, answer: answerOver(gather), send: sendOver(gather) } : plain
        }),
        () =>
          Effect.sync(() => {
            open = false
            process.open.delete(block)
          })
      )
    })
})

const userfaultfd = (process: Process, { kernel }: Options): UserfaultfdShape => ({
  available: Effect.void,
  register: (_blocks, guestStopped) =>
    Effect.gen(function*() {
      kernel.register()
      const key = {}
      const close = () => kernel.close()
      process.open.set(key, { what: "the guest's userfaultfd", close })
      let released = false
      const release = (complete: boolean) => {
        if (released) return
        released = true
        if (!complete && !guestStopped()) {
          // It stays open for ever: whoever waits for a page goes on waiting.
          process.open.set(key, { what: PARKED, close })
          return
        }
        kernel.unregister()
        process.open.delete(key)
        kernel.close()
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => release(false)))
      const registration: Registration = {
        blocks: kernel.blocks.map(({ address, file, idstr, length }) => ({
          idstr,
          length,
          address,
          hostPageSize: kernel.pageSize,
          mode: file === undefined ? "copy" as const : "continue" as const
        })),
        descriptor: undefined,
        memfds: [],
        release
      }
      return registration
    })
})

const daemonProcess = (process: Process, options: Options): DaemonProcessShape => {
  const { daemonStarts, kernel, network, onDaemon, scenario, world } = options
  return {
    start: Effect.gen(function*() {
      const daemon = world.spawn("daemon")
      daemon.main.weight = scenario.weights.daemon
      daemon.budget = scenario.budget
      daemon.context = Context.add(daemon.context, Settings, defaults)
      const connection = Sockets.connect(scenario.channel)
      const here = Sockets.open(world, process, connection, connection.ends[0], "the umem daemon")
      const there = Sockets.open(world, daemon, connection, connection.ends[1], "the guest")
      const counters = new DaemonCounters.DaemonCounters(new ArrayBuffer(DaemonCounters.BYTES))
      const gone = Deferred.makeUnsafe<string>()
      const ready = Deferred.makeUnsafe<void>()
      let handed = false
      let states: PageStates | undefined
      daemon.onExit.push((how) => process.scheduleTask(() => Deferred.doneUnsafe(gone, Effect.succeed(how))))
      /** The end of the handover socket: the daemon that was given nothing has nothing to do. */
      const abandon = () => {
        if (!handed) daemon.scheduleTask(() => daemon.end("exit status 0"))
      }
      process.onExit.push(abandon)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          here.close()
          abandon()
        })
      )
      onDaemon(daemon)
      world.after(world.random.below(2_000) / 1000, daemon, () => {
        if (daemonStarts) process.scheduleTask(() => Deferred.doneUnsafe(ready, Effect.void))
        else daemon.end("exit status 1")
      })
      yield* Effect.raceFirst(
        Deferred.await(ready),
        Effect.flatMap(
          Deferred.await(gone),
          (how) => Effect.fail(new DaemonFailed({ detail: `the umem daemon ended while starting: ${how}` }))
        )
      )
      return {
        channel: here,
        counters,
        pid: 2,
        exited: Deferred.await(gone),
        states: () => states,
        handover: ({ flags, link, registration, remainder, targetPageSize }) =>
          Effect.suspend(() => {
            const end = network.ends.get(link)
            if (end === undefined || !daemon.alive) {
              return Effect.fail(new DaemonFailed({ detail: "cannot hand over to the umem daemon: EPIPE" }))
            }
            handed = true
            states = new PageStates(PageStates.pagesOf(registration.blocks, targetPageSize))
            daemon.start(
              Daemon.main({
                link: Sockets.open(world, daemon, end[0], end[1], "the source", network.onCut),
                uffd: Daemon.serve(daemon, kernel, scenario),
                blocks: registration.blocks,
                targetPageSize,
                flags,
                remainder,
                counters,
                states
              }, there),
              (exit) => {
                if (exit._tag === "Failure") {
                  options.violated(new Violation(`the umem daemon died: ${String(exit.cause)}`))
                }
                daemon.end(
                  exit._tag === "Success" && exit.value._tag === "Finished" ? "exit status 0" : "exit status 1"
                )
              }
            )
            return Effect.void
          })
      }
    })
  }
}

/** The thread that takes faults on purpose. */
class PrefaultThread implements Thread, Waiter {
  readonly name = "prefault"
  readonly process: Process
  readonly #kernel: Kernel
  readonly beside = true
  weight = 4
  waiting = false
  readonly asked: Array<{ readonly pages: Array<readonly [number, number]>; readonly done: () => void }> = []

  constructor(process: Process, kernel: Kernel) {
    this.process = process
    this.#kernel = kernel
  }
  ready(): boolean {
    return !this.waiting && this.asked.length > 0
  }
  step(): void {
    const first = this.asked[0]!
    const next = first.pages[0]
    if (next === undefined) {
      this.asked.shift()
      this.process.scheduleTask(first.done)
    } else if (this.#kernel.touch(this.#kernel.blocks[next[0]]!, next[1], this) !== undefined) first.pages.shift()
  }
}

const prefault = (process: Process, { kernel, world }: Options): PrefaultShape => ({
  make: () =>
    Effect.sync(() => {
      const thread = new PrefaultThread(process, kernel)
      world.threads.push(thread)
      return (ranges: Ranges) =>
        Effect.callback<void>((resume) => {
          const pages = ranges.flatMap(([block, offset, length]) =>
            Array.from(
              { length: Math.ceil(length / kernel.pageSize) },
              (_, i): readonly [number, number] => [block, offset / kernel.pageSize + i]
            )
          )
          thread.asked.push({ pages, done: () => resume(Effect.void) })
        })
    })
})

/** Everything the engine asks for, in one process. */
export const provide = (process: Process, options: Options): void => {
  const { guest } = options
  process.context = process.context.pipe(
    Context.add(Settings, defaults),
    Context.add(Links, links(process, options)),
    Context.add(GuestMemory, guestMemory(process, options)),
    Context.add(Userfaultfd, userfaultfd(process, options)),
    Context.add(DaemonProcess, daemonProcess(process, options)),
    Context.add(Prefault, prefault(process, options)),
    Context.add(GuestThreads, {
      load: () =>
        Effect.acquireRelease(
          Effect.sync(() => {
            process.open.set(guest, { what: "the vCPU threads", close: () => guest.close() })
            return guest.vcpu()
          }),
          () =>
            Effect.sync(() => {
              process.open.delete(guest)
              guest.close()
            })
        )
    })
  )
}
