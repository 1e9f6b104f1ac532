/**
 * A destination without processes and without a kernel: the umem daemon is a fiber of this process, and serves a
 * `ModelMemory`. `Userfaultfd` and `DaemonProcess` are replaced together, since one hands its memory to the other.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Channel from "../actors/Channel.ts"
import { type DaemonMessage, MAILBOX_CAPACITY } from "../actors/Mailboxes.ts"
import * as PipeMessages from "../actors/PipeMessages.ts"
import * as UmemDaemon from "../actors/UmemDaemon.ts"
import * as DaemonCounters from "./DaemonCounters.ts"
import { DaemonProcess, type HandoverRequest } from "./DaemonProcess.ts"
import * as LinkMemory from "./LinkMemory.ts"
import { PageStates } from "./PageStates.ts"
import { Userfaultfd } from "./Userfaultfd.ts"
import type { ModelMemory } from "./UserfaultfdMemory.ts"

/** Serves `memory`, whose blocks must be the guest's. `crash` ends the daemon as a SIGKILL would. */
export const layer = (memory: ModelMemory, crash: Effect.Effect<void> = Effect.never): Layer.Layer<never> =>
  Layer.merge(
    Layer.succeed(Userfaultfd, {
      available: Effect.void,
      register: () =>
        Effect.succeed({
          blocks: memory.blocks,
          descriptor: undefined,
          memfds: [],
          release: (complete) => {
            if (complete) memory.channel.close()
          }
        })
    }),
    Layer.succeed(DaemonProcess, {
      start: Effect.gen(function*() {
        const [guestEnd, daemonEnd] = yield* LinkMemory.pair()
        const counters = new DaemonCounters.DaemonCounters(new ArrayBuffer(DaemonCounters.BYTES))
        let states: PageStates | undefined
        const exited = Deferred.makeUnsafe<string>()
        const scope = yield* Effect.scope
        yield* Effect.addFinalizer(() => Effect.sync(() => guestEnd.close()))
        return {
          channel: guestEnd,
          counters,
          pid: -1,
          exited: Deferred.await(exited),
          states: () => states,
          handover: ({ flags, link, registration, remainder, targetPageSize }: HandoverRequest) =>
            Effect.gen(function*() {
              states = new PageStates(PageStates.pagesOf(registration.blocks, targetPageSize))
              const inbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
              yield* UmemDaemon.run({
                uffd: memory.channel,
                link,
                channel: Channel.make<DaemonMessage>({
                  link: daemonEnd,
                  from: "guest",
                  mailbox: inbox,
                  toMessage: PipeMessages.toDaemon,
                  ended: () => ({ _tag: "ChannelClosed" })
                }),
                inbox,
                blocks: registration.blocks,
                targetPageSize,
                flags,
                remainder,
                counters,
                states
              }).pipe(
                Effect.raceFirst(crash),
                Effect.ensuring(Effect.sync(() => {
                  link.close()
                  daemonEnd.close()
                  Deferred.doneUnsafe(exited, Effect.succeed("the end of its fiber"))
                })),
                Effect.scoped,
                Effect.forkIn(scope, { startImmediately: true })
              )
            })
        }
      })
    })
  )
