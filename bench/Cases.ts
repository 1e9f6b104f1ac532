/**
 * What is measured, and against what. A case is two sides that run in turn, most often ours and the floor in C, and the
 * figures compared between them. Sizes are the recorded ones; `scale` makes them small enough to try a case out.
 */
import { cpus } from "node:os"
import { type Figures, floor, ours, type Plan } from "./Migration.ts"
import * as Processes from "./Processes.ts"
import * as Qemu from "./QemuPostcopy.ts"

export interface Figure {
  /** Name of the figure, in both sides' results. */
  readonly name: string
  readonly unit: string
  readonly better: "lower" | "higher"
  /** The ratio that is aimed at, if there is one: at most (lower) or at least (higher). */
  readonly aim?: number
}

type Result = Readonly<Record<string, number | undefined>>

export interface Case {
  readonly name: string
  readonly about: string
  readonly figures: ReadonlyArray<Figure>
  readonly ours: () => Promise<Result>
  readonly other: () => Promise<Result>
  /** What the other side is. */
  readonly against: string
  /** Why it cannot run here, if it cannot. */
  readonly missing?: string
}

const us = (name: string, aim?: number): Figure => ({
  name,
  unit: "us",
  better: "lower",
  ...(aim === undefined ? {} : { aim })
})
const ms = (name: string, aim?: number): Figure => ({ ...us(name, aim), unit: "ms" })
const rate = (aim?: number): Figure => ({
  name: "gibPerSecond",
  unit: "GiB/s",
  better: "higher",
  ...(aim === undefined ? {} : { aim })
})
const cpu: ReadonlyArray<Figure> = [
  { name: "sourceCpuPerGib", unit: "s/GiB", better: "lower" },
  { name: "daemonCpuPerGib", unit: "s/GiB", better: "lower" }
]
const resident: ReadonlyArray<Figure> = [
  { name: "daemonKib", unit: "KiB", better: "lower" },
  { name: "sourceGrowthKib", unit: "KiB", better: "lower" }
]

const SLEEPING = { run: ["--busy-poll", "0"], receive: ["--busy-poll", "0"] }

/** A loop that does nothing on every core, for as long as `run` lasts. */
const underLoad = async <A>(run: () => Promise<A>): Promise<A> => {
  const loads = cpus().map(() => Processes.start(process.execPath, ["-e", "for (;;);"]))
  try {
    return await run()
  } finally {
    for (const load of loads) await load.kill()
  }
}

/** `scale` divides sizes, down to a few pages. */
export const all = (scale: number): ReadonlyArray<Case> => {
  const size = (mebibytes: number) => Math.max(1, Math.floor(mebibytes / scale))
  const pages = (mebibytes: number) => size(mebibytes) * 256
  const paired = (
    name: string,
    about: string,
    figures: ReadonlyArray<Figure>,
    plan: Plan,
    floorPlan: Plan = plan
  ): Case => ({
    name,
    about,
    figures,
    against: "the floor in C",
    ours: async () => ({ ...await ours(plan) }),
    other: async () => ({ ...await floor(floorPlan) })
  })
  const transports = ["unix", "tcp"] as const
  const demand = (transport: Plan["transport"]): Plan => ({
    mebibytes: size(64),
    touches: pages(64),
    transport,
    background: false
  })
  const loaded = (transport: Plan["transport"]): Plan => ({
    mebibytes: size(1024),
    touches: pages(32),
    transport,
    background: true
  })
  const bulk = (transport: Plan["transport"], fill: Plan["fill"] = "random"): Plan => ({
    mebibytes: size(1024),
    transport,
    background: true,
    fill
  })
  const faults = [us("p50Us", 0.6), us("p99Us", 1.2), us("p999Us")]

  return [
    ...transports.map((transport) =>
      paired(
        `fault-${transport}`,
        `remote page fault over ${transport}, background off, random order`,
        faults,
        demand(transport)
      )
    ),
    ...transports.map((transport): Case => ({
      name: `floor-${transport}-waits`,
      about: `what the floor itself gains over ${transport} by waiting without sleeping, as ours does`,
      figures: [us("p50Us"), us("p99Us")],
      against: "the floor in C, asleep between two faults",
      ours: async () => ({ ...await floor({ ...demand(transport), floorWaitMicros: 50 }) }),
      other: async () => ({ ...await floor(demand(transport)) })
    })),
    ...transports.map((transport) =>
      paired(
        `fault-${transport}-sleep`,
        `the same with --busy-poll 0`,
        [us("p50Us", 2), us("p99Us", 2), us("p999Us"), ...cpu],
        { ...demand(transport), arguments: SLEEPING },
        demand(transport)
      )
    ),
    ...transports.map((transport): Case => ({
      name: `fault-${transport}-contended`,
      about: `the same with a competing load on every core`,
      figures: [us("p50Us", 1.3), us("p99Us"), us("p999Us")],
      against: "the floor in C",
      ours: async () => ({ ...await underLoad(() => ours(demand(transport))) }),
      other: async () => ({ ...await underLoad(() => floor(demand(transport))) })
    })),
    ...transports.map((transport) =>
      paired(
        `loaded-${transport}`,
        `remote page fault over ${transport} while the background runs at full speed`,
        [us("p50Us"), us("p99Us"), us("p999Us"), ms("totalMs")],
        loaded(transport)
      )
    ),
    ...transports.map((transport): Case => ({
      name: `loaded-${transport}-own`,
      about: `a fault under full background against ours without`,
      figures: [us("p50Us"), us("p99Us", 3)],
      against: "ours, background off",
      ours: async () => ({ ...await ours(loaded(transport)) }),
      other: async () => ({ ...await ours(demand(transport)) })
    })),
    ...transports.map((transport) =>
      paired(
        `bulk-${transport}`,
        `background alone over ${transport}, random data`,
        [rate(transport === "unix" ? 1.2 : 1), ...cpu],
        bulk(transport)
      )
    ),
    paired(
      "bulk-zero",
      "background alone, zero pages, against the floor's random data",
      [rate(5), ...cpu],
      bulk("unix", "zero"),
      bulk("unix")
    ),
    paired(
      "bulk-fill",
      "background alone, pages of one byte, against the floor's random data",
      [rate(1.5), ...cpu],
      bulk("unix", "byte"),
      bulk("unix")
    ),
    paired(
      "sparse",
      "a guest that touches 5 % of its memory, until it has all of it",
      [ms("totalMs"), ms("touchMs")],
      { ...bulk("unix"), touches: Math.floor(pages(1024) / 20) }
    ),
    ...[1, 4, 16].map((threads) =>
      paired(
        `threads-${threads}`,
        `${threads} faulting threads over unix, background off`,
        [us("p50Us"), us("p99Us"), ms("touchMs")],
        { ...demand("unix"), threads }
      )
    ),
    ...[0, 1, 6, 25].map((roundTripMillis) =>
      paired(
        `rtt-${roundTripMillis}`,
        `4 threads fault, the background runs, ${roundTripMillis} ms round trip`,
        [us("p50Us"), us("p99Us"), ms("totalMs"), rate()],
        { ...bulk("tcp"), mebibytes: size(256), touches: pages(4), threads: 4, roundTripMillis }
      )
    ),
    ...[64, 256, 1024, 4096].map((mebibytes) =>
      paired(
        `size-${mebibytes}`,
        `downtime, total time and memory of a guest of ${mebibytes} MiB`,
        [ms("downtimeMs"), ms("totalMs"), ...resident],
        { ...bulk("unix"), mebibytes: size(mebibytes), steps: true }
      )
    ),
    {
      name: "downtime-growth",
      about: "downtime of a guest of 4 GiB against one of 64 MiB",
      figures: [ms("downtimeMs", 1.2)],
      against: "ours, 64 MiB",
      ours: async () => ({ ...await ours({ ...bulk("unix"), mebibytes: size(4096), steps: true }) }),
      other: async () => ({ ...await ours({ ...bulk("unix"), mebibytes: size(64), steps: true }) })
    },
    {
      name: "qemu",
      about: "1 GiB, verified page by page, against QEMU's own post-copy",
      figures: [ms("totalMs", 1), us("blockedUsPerPage", 1)],
      against: "QEMU",
      ours: async () => {
        const figures: Figures = await ours({
          ...bulk("unix"),
          mebibytes: size(1024),
          touches: pages(1024),
          ascending: true
        })
        return { totalMs: figures.totalMs, blockedUsPerPage: figures.meanUs }
      },
      other: () => Qemu.migrate(Math.max(32, size(1024))),
      ...Qemu.missing()
    }
  ]
}
