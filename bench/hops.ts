/**
 * Where a microsecond of a page fault goes: both actors of the data path in one process and thread, over sockets and a
 * userfaultfd, without guest and without wake-ups. `node bench/hops.ts [FAULTS]`: time between the hops, medians.
 */
import * as Effect from "effect/Effect"
import * as Binding from "../src/native/Binding.ts"
import { rehearsal } from "../src/Rehearsal.ts"
import * as Stage from "../src/RehearsalStage.ts"
import type { Link } from "../src/services/Link.ts"
import { quantile } from "./Statistics.ts"

const faults = Number(process.argv[2] ?? 16384)
const addon = Binding.require()

const names = [
  "fault read → request written",
  "write(2) of the request",
  "request written → read at the source",
  "request read → page written",
  "write(2) of the page",
  "page written → read at the daemon",
  "page read → installed",
  "UFFDIO_COPY or ZEROPAGE",
  "whole"
] as const
const took = names.map(() => new Float64Array(faults))

const program = Effect.gen(function*() {
  const stage = yield* Stage.kernel(addon, faults)
  const now = addon.monotonicNanos
  let page = 0
  let last = 0
  const reach = (hop: number) => {
    const at = now()
    if (page < faults) took[hop]![page] = at - last
    last = at
  }
  /** Two hops: up to the write, and the write itself. */
  const written = (link: Link, hop: number): Link => ({
    ...link,
    write: (from, offset, length) => {
      reach(hop)
      const n = link.write(from, offset, length)
      reach(hop + 1)
      return n
    }
  })
  const read = (link: Link, hop: number): Link => ({
    ...link,
    read: (into, offset, length) => {
      const n = link.read(into, offset, length)
      if (n > 0) reach(hop)
      return n
    }
  })
  // The ordinary way: the quick one has no hops, it is one call on either side.
  const { answer: _, ...block } = stage.block
  const { fetch: __, ...uffd } = stage.uffd
  yield* rehearsal({
    ...stage,
    block,
    source: read(written(stage.source, 3), 2),
    destination: read(written(stage.destination, 0), 5),
    busyPoll: undefined,
    uffd: {
      ...uffd,
      copyRun: (...run) => {
        reach(6)
        const n = stage.uffd.copyRun(...run)
        reach(7)
        return n
      },
      zeropage: (address, length) => {
        reach(6)
        const n = stage.uffd.zeropage(address, length)
        reach(7)
        return n
      }
    },
    touch: (next) =>
      Effect.suspend(() => {
        page = next
        const begun = last = now()
        return Effect.map(stage.touch(next), () => {
          took[8]![next] = now() - begun
        })
      })
  })
}).pipe(Effect.scoped)

await Effect.runPromise(program)
// The first are those of code that runs for the first time.
const warm = faults >> 1
for (const [i, name] of names.entries()) {
  const all = Array.from(took[i]!.subarray(warm))
  const us = (q: number) => (quantile(all, q) / 1000).toFixed(2).padStart(8)
  process.stdout.write(`${name.padEnd(40)}${us(0.1)}${us(0.5)}${us(0.9)}\n`)
}
