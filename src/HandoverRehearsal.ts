/**
 * A handover to a umem daemon, sent and received once within this process, of memory that nobody waits for. The guest's
 * process and the daemon's both play it: see `Rehearsal` for why.
 */
import * as Effect from "effect/Effect"
import type { Addon } from "./native/Binding.ts"
import * as Handover from "./services/Handover.ts"

const TABLE: Handover.Table = {
  blocks: [{ idstr: "rehearsal", length: 4096, hostPageSize: 4096, address: 0, mode: "copy" }],
  targetPageSize: 4096,
  flags: 0,
  busyPollMicros: 0
}

/** Leaves nothing open. Defects, such as a host without memfds, are the caller's to bound. */
export const rehearseHandover = (addon: Addon): Effect.Effect<void> =>
  Effect.gen(function*() {
    const [here, there] = addon.socketpair(addon.constants.SOCK_SEQPACKET)
    const map = addon.Region.memfd("postcopy-rehearsal", addon.pageSize)
    const memory = map.descriptor()
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const owner of [here, there, map, memory]) owner?.close()
      })
    )
    if (memory === null) return
    const descriptors = { uffd: there, link: there, counters: memory, states: memory, memfds: [] }
    if (Handover.send(addon, here, TABLE, new Uint8Array(1), descriptors) < 0) return
    const received = yield* Handover.receive(addon, there)
    if (received === undefined) return
    const { counters, link, states, uffd } = received
    // Not looked at: a buffer would keep its descriptor open until it is collected.
    const mapped = addon.Region.map(states, 0, addon.pageSize)
    for (const owner of [counters, link, states, uffd, mapped]) owner.close()
  }).pipe(Effect.scoped)
