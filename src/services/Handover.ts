/**
 * The packets of the handover socket. Daemon to guest: one packet `ready`. Guest to daemon: one packet
 * `[u32 length of the table, table as JSON, bytes already read]` that carries descriptors: uffd, link, counters, page
 * states, memfds.
 * A SEQPACKET socket keeps packets whole, so nothing here is incremental.
 */
import * as Effect from "effect/Effect"
import type { Descriptor } from "userfaultfd-napi"
import { DaemonFailed } from "../MigrationError.ts"
import type { Addon } from "../native/Binding.ts"
import type { RegisteredBlock } from "./Userfaultfd.ts"

export interface Table {
  readonly blocks: ReadonlyArray<RegisteredBlock>
  readonly targetPageSize: number
  readonly flags: number
  /** Microseconds that the daemon may wait without sleeping. */
  readonly busyPollMicros: number
}

export interface Received {
  readonly table: Table
  readonly remainder: Uint8Array
  readonly uffd: Descriptor
  readonly link: Descriptor
  readonly counters: Descriptor
  readonly states: Descriptor
  /** Behind the blocks of mode "continue", in their order. */
  readonly memfds: ReadonlyArray<Descriptor>
}

const READY = new TextEncoder().encode("ready")
/** Largest packet: a read-ahead of 64 KiB and a table of a few thousand blocks fit well. */
const MAX_PACKET = 200 * 1024

export const sendReady = (addon: Addon, socket: Descriptor): number => addon.write(socket, READY, 0, READY.length)

/** Signed: bytes sent or -errno. */
export const send = (
  addon: Addon,
  socket: Descriptor,
  table: Table,
  remainder: Uint8Array,
  descriptors: Pick<Received, "uffd" | "link" | "counters" | "states" | "memfds">
): number => {
  const json = new TextEncoder().encode(JSON.stringify(table))
  const packet = new Uint8Array(4 + json.length + remainder.length)
  new DataView(packet.buffer).setUint32(0, json.length)
  packet.set(json, 4)
  packet.set(remainder, 4 + json.length)
  const { counters, link, memfds, states, uffd } = descriptors
  return addon.sendDescriptors(socket, packet, [uffd, link, counters, states, ...memfds])
}

/** Waits for a packet; `undefined` when the other side is gone. */
const packet = <A>(
  addon: Addon,
  socket: Descriptor,
  take: (bytes: number, into: Uint8Array, descriptors: ReadonlyArray<Descriptor>) => A
): Effect.Effect<A | undefined> =>
  Effect.callback<A | undefined>((resume) => {
    const poller = new addon.Poller(socket)
    poller.watch(addon.constants.READABLE, () => {
      const into = new Uint8Array(MAX_PACKET)
      const { bytes, descriptors } = addon.receiveDescriptors(socket, into)
      if (bytes === -11) return
      poller.close()
      resume(Effect.succeed(bytes <= 0 ? undefined : take(bytes, into, descriptors)))
    })
    return Effect.sync(() => poller.close())
  })

export const awaitReady = (addon: Addon, socket: Descriptor): Effect.Effect<void, DaemonFailed> =>
  Effect.flatMap(
    packet(addon, socket, () => true),
    (ready) =>
      ready === true ? Effect.void : Effect.fail(new DaemonFailed({ detail: "the umem daemon ended while starting" }))
  )

/** `undefined` when the guest's process ended before it handed anything over. */
export const receive = (addon: Addon, socket: Descriptor): Effect.Effect<Received | undefined> =>
  packet(addon, socket, (bytes, into, descriptors) => {
    const length = new DataView(into.buffer).getUint32(0)
    const table = JSON.parse(new TextDecoder().decode(into.subarray(4, 4 + length))) as Table
    const [uffd, link, counters, states, ...memfds] = descriptors
    if (uffd === undefined || link === undefined || counters === undefined || states === undefined) {
      return undefined
    }
    return { table, remainder: into.slice(4 + length, bytes), uffd, link, counters, states, memfds }
  })
