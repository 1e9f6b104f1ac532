/**
 * The umem daemon as a simulated process: its life around the real actor, in the order of the real entry. It ends by
 * itself, when it is killed, and when the guest's process is gone before anything was handed over.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Channel from "../../src/actors/Channel.ts"
import { type DaemonMessage, MAILBOX_CAPACITY } from "../../src/actors/Mailboxes.ts"
import * as PipeMessages from "../../src/actors/PipeMessages.ts"
import * as UmemDaemon from "../../src/actors/UmemDaemon.ts"
import type { DaemonCounters } from "../../src/services/DaemonCounters.ts"
import { fetchOver } from "../../src/services/FetchReference.ts"
import type { Link } from "../../src/services/Link.ts"
import * as LinkIo from "../../src/services/LinkIo.ts"
import type { PageStates } from "../../src/services/PageStates.ts"
import { Settings } from "../../src/services/Settings.ts"
import { EVENT_WORDS, type FaultChannel, type RegisteredBlock } from "../../src/services/Userfaultfd.ts"
import { Errno, type Kernel } from "./Kernel.ts"
import type { Scenario } from "./Scenario.ts"
import type { Process } from "./World.ts"

/** The daemon's descriptor of the userfaultfd. */
export const serve = (
  process: Process,
  kernel: Kernel,
  { interleaving, quick, ringEvents }: Scenario
): FaultChannel => {
  // The guest's threads run on while the daemon does: between any two of its system calls. They like to be where it is.
  const meanwhile = (address = -1) => {
    kernel.near = address
    process.world.interleave(interleaving)
    kernel.near = -1
  }
  const ring = new Float64Array(ringEvents * EVENT_WORDS)
  let onBurst: ((count: number) => void) | undefined
  let first: (() => boolean) | undefined
  let open = true
  kernel.holders++
  const source = {
    ready: () => onBurst !== undefined && kernel.readable,
    fire: () => {
      if (first?.() === true) return
      const n = kernel.read(ring, ringEvents)
      if (n !== 0) onBurst?.(n)
    }
  }
  process.sources.push(source)
  const channel: FaultChannel = {
    ring,
    attach: (callback, before) => {
      onBurst = callback
      first = before
    },
    ...(quick ? { fetch: (...given) => fetchOver(channel)(...given) } : {}),
    drain: () => {
      meanwhile()
      return kernel.read(ring, ringEvents)
    },
    copy: (address, bytes, offset, length) => {
      meanwhile(address)
      return kernel.copy(address, bytes, offset, length)
    },
    copyRun: (address, bytes, offset, stride, pageSize, pages) => {
      for (let i = 0; i < pages; i++) {
        meanwhile(address + i * pageSize)
        const n = kernel.copy(address + i * pageSize, bytes, offset + i * stride, pageSize)
        // As the addon has it: a page that is there already counts, and whoever waits for it is woken.
        if (n === Errno.EEXIST) kernel.wake(address + i * pageSize, pageSize)
        else if (n < 0) return i
      }
      return pages
    },
    zeropage: (address, length) => {
      meanwhile(address)
      return kernel.zeropage(address, length)
    },
    continueRange: (address, length) => {
      meanwhile(address)
      return kernel.continueRange(address, length)
    },
    wake: (address, length) => kernel.wake(address, length),
    unregister: (address, length) => kernel.unregisterRange(address, length),
    staged: (idstr) => {
      const block = kernel.block(idstr)
      return {
        write: (offset, from, at, length) => {
          kernel.stage(block, offset, from, at, length)
          meanwhile(block.address + offset - offset % kernel.pageSize)
        },
        clear: (offset, length) => kernel.unstage(block, offset, length)
      }
    },
    close: () => {
      if (!open) return
      open = false
      onBurst = undefined
      const at = process.sources.indexOf(source)
      if (at >= 0) process.sources.splice(at, 1)
      process.open.delete(channel)
      kernel.close()
    }
  }
  process.open.set(channel, { what: "the daemon's userfaultfd", close: channel.close })
  return channel
}

export interface Handed {
  readonly link: Link
  readonly uffd: FaultChannel
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly targetPageSize: number
  readonly flags: number
  readonly remainder: Uint8Array
  readonly counters: DaemonCounters
  readonly states: PageStates
}

/** From the handover to the end. */
export const main = ({ link, uffd, ...handed }: Handed, channelLink: Link) =>
  Effect.gen(function*() {
    const { goodbyeMillis } = yield* Settings
    const inbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
    const channel = Channel.make<DaemonMessage>({
      link: channelLink,
      from: "guest",
      mailbox: inbox,
      toMessage: PipeMessages.toDaemon,
      ended: () => ({ _tag: "ChannelClosed" })
    })
    const ending = yield* UmemDaemon.run({ ...handed, uffd, link, channel, inbox })
    yield* Effect.ignore(LinkIo.drained(link, goodbyeMillis))
    link.close()
    channel.close()
    uffd.close()
    return ending
  }).pipe(Effect.scoped)
