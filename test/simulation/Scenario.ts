/**
 * What a seed stands for: the guest, the page sizes, the links, the limits, how threads are favoured, what users do, and
 * what goes wrong when. Drawn before the run and apart from its schedule.
 */
import { Random } from "./Random.ts"
import { type Cut, type Nature, plain } from "./Sockets.ts"

export type Victim = "source" | "daemon" | "guest"

/** Something that goes wrong, or that a user does in the middle. */
export type Fault =
  | { readonly _tag: "Crash"; readonly victim: Victim; readonly step: number }
  | { readonly _tag: "Stop"; readonly victim: Victim; readonly step: number; readonly millis: number }
  | { readonly _tag: "Cut"; readonly forth: boolean; readonly cut: Cut }
  | { readonly _tag: "Cancel" | "Quit"; readonly step: number }
  | { readonly _tag: "GuestThrows"; readonly side: "source" | "destination"; readonly at: number }
  | { readonly _tag: "RestoreFails" | "DaemonDoesNotStart" | "NobodyListens" }
  /** The kernel has no memory for one page, when so many are still missing. */
  | { readonly _tag: "NoMemory"; readonly missing: number }

/** What a malicious or broken peer does in the place of the real one. */
export type Hostile = "source" | "destination"

export interface Scenario {
  readonly seed: number
  readonly targetPageSize: number
  readonly hostPageSize: number
  readonly memfd: boolean
  readonly huge: boolean
  readonly gap: number
  readonly blocks: ReadonlyArray<{ readonly idstr: string; readonly length: number }>
  readonly vcpus: { readonly source: number; readonly destination: number }
  readonly operations: { readonly source: number; readonly destination: number }
  /** Of a hundred operations, how many give memory back. */
  readonly discards: number
  /** Pages that the guest's threads at the destination seek out: the last one placed, or those another thread gives back. */
  readonly seeks: "placed" | "leaving" | undefined
  readonly background: boolean
  readonly maxBandwidth: number | undefined
  readonly flags: number
  readonly link: Nature
  readonly channel: Nature
  readonly ringEvents: number
  /** Whether both sides have the quick way of pages that are asked for. */
  readonly quick: boolean
  /** Chance of a step of the guest's threads between two system calls of the daemon. */
  readonly interleaving: number
  readonly stepNanos: number
  /** Of main threads, vCPUs and the daemon. */
  readonly weights: Readonly<Record<Victim | "vcpu", number>>
  readonly budget: number
  readonly limits: Readonly<Record<string, number>>
  /** Milliseconds before the migration begins. */
  readonly before: number
  /** Steps at which a user changes the limit, asks the guest, or pauses and resumes it. */
  readonly actions: ReadonlyArray<
    { readonly step: number; readonly what: "limit" | "call" | "pause" | "status" | "again" }
  >
  readonly faults: ReadonlyArray<Fault>
  readonly hostile: Hostile | undefined
}

/** What this build of the engine can do: memfd mode and huge pages are drawn only where it has them. */
export interface Abilities {
  readonly memfd: boolean
  readonly huge: boolean
}

export const abilities: Abilities = { memfd: true, huge: true }

const NAMES = ["pc.ram", "pc.ram2", "vga.vram", "p"]

const nature = (random: Random): Nature => {
  const latency = random.pick([0, 0, 0.05, 0.4, 3])
  return {
    capacity: random.pick([300, 2_000, 9_000, 70_000]),
    back: random.pick([16, 50, 300, 70_000]),
    latency,
    jitter: latency * random.pick([0, 1, 2]),
    mostRead: random.pick([1_500, 20_000, 2 ** 20, 2 ** 20, 200]),
    mostWritten: random.pick([1_500, 20_000, 2 ** 20, 2 ** 20, 200]),
    early: random.pick([0, 0.1, 0.4]),
    unix: random.chance(0.5)
  }
}

const channel = (random: Random): Nature =>
  random.chance(0.6) ? plain : {
    capacity: random.pick([8, 64, 1024]),
    back: random.pick([8, 64, 1024]),
    latency: random.pick([0, 0.1, 1]),
    jitter: 0,
    mostRead: random.pick([1, 5, 1_000]),
    mostWritten: random.pick([1, 5, 1_000]),
    early: 0,
    unix: true
  }

/** A step early, in the middle or late: most things happen in the first few hundred. */
const step = (random: Random) => random.below(random.pick([60, 150, 250, 600]))

const fault = (random: Random, bytes: number): Fault => {
  const victim = random.pick(["source", "daemon", "guest"] as const)
  switch (random.below(15)) {
    case 0:
    case 1:
      return { _tag: "Crash", victim, step: step(random) }
    case 2:
    case 3:
      return { _tag: "Stop", victim, step: step(random), millis: random.pick([1, 20, 800, 12_000]) }
    case 4:
    case 5:
    case 6:
    case 7: {
      const forth = random.chance(0.7)
      const most = forth ? random.pick([120, bytes, bytes]) : 120
      const kind = random.pick(["reset", "end", "silence"] as const)
      return {
        _tag: "Cut",
        forth,
        cut: {
          byte: random.below(most),
          kind,
          millis: random.pick([5, 700, 3_000, 20_000]),
          breaks: random.chance(0.5)
        }
      }
    }
    case 8:
    case 9:
      return { _tag: "Cancel", step: step(random) }
    case 10:
      return { _tag: "Quit", step: step(random) }
    case 11:
      return {
        _tag: "GuestThrows",
        side: random.pick(["source", "destination"] as const),
        at: random.below(30)
      }
    case 12:
      return { _tag: random.pick(["RestoreFails", "DaemonDoesNotStart", "NobodyListens"] as const) }
    default:
      return { _tag: "NoMemory", missing: random.pick([1, 1, 2, 5, 40]) }
  }
}

const sizes = (random: Random): readonly [target: number, host: number] => {
  const target = random.pick([256, 256, 512, 1024, 4096])
  const host = random.pick([target, target, target * 2, target * 4, target * 4, target / 2, target / 4])
  return [target, host]
}

/** Small enough that a guest of a few pages meets what one of a million pages meets. */
const limits = (random: Random, target: number, huge: boolean): Record<string, number> => ({
  TARGET_PAGE_SIZE: target,
  MAX_ZEROPAGE: huge ? 1 : 64 * 1024,
  BACKGROUND_CHUNK: random.pick([1, 3, 4]) * target,
  // The sender's buffer is made for this: it is never the smaller.
  DEMAND_CHUNK: random.pick([4, 5, 16]) * target,
  MAX_LOOKED: random.pick([1, 3, 128]),
  TURN_BYTES: random.pick([1, 10, 100]) * target,
  FIRST_STEPS_MILLIS: random.pick([0, 2, 100]),
  READ_BYTES: random.pick([700, 5_000, 128 * 1024]),
  PAGES_BETWEEN_LOOKS: random.pick([1, 2, 8]),
  ZEROS_BETWEEN_LOOKS: random.pick([1, 8, 256]),
  MAX_REQUESTS: random.pick([1, 3, 33280]),
  PENDING_SIZE_MAX: random.pick([0, 20, 100, 5_000]),
  MAX_ASKED: random.pick([1, 2, 9, 400]),
  MAX_TRIGGER_PAGES: random.pick([1, 3, 256]),
  RETRY_MILLIS: random.pick([0.5, 1, 4]),
  CHUNK: random.pick([1, 3, 4]) * target,
  MOST_PUSHED: random.pick([1, 3, 128]),
  MOST_BYTES: random.pick([1, 2, 16]) * target,
  MOST_ZEROS: random.pick([1, 8, 256]),
  MOST_LOOKS: random.pick([1, 2, 5, 256])
})

const sized = (scenario: Scenario, hostPageSize: number): Scenario => ({
  ...scenario,
  hostPageSize,
  gap: scenario.gap > 0 ? 16 * hostPageSize : 0
})

/**
 * Races that chance alone comes to too rarely, in some of the scenarios: a guest that is busy giving memory back where the
 * daemon installs it, or has bytes of it in a memfd; and one whose pages are touched on purpose while a link or a process
 * is lost. Drawn apart, so that the others stay what they are.
 */
const raced = (random: Random, drawn: Scenario): Scenario => {
  const { blocks, faults, hostile, huge, limits, link, memfd, operations, quick, targetPageSize, vcpus, weights } =
    drawn
  if (hostile !== undefined || huge) return drawn
  const busy = {
    ...drawn,
    discards: random.pick([30, 60]),
    operations: { ...operations, destination: 30 },
    vcpus: { ...vcpus, destination: 4 },
    interleaving: 0.5
  }
  if (faults.some(({ _tag }) => _tag === "Crash" || _tag === "Cut")) {
    if (random.chance(0.6)) return drawn
    // The daemon's last words come behind pages that it has said to touch, which are gone again by then.
    return {
      ...sized(busy, targetPageSize / 4),
      discards: 60,
      seeks: "placed",
      flags: 1,
      channel: { ...plain, capacity: 8, back: 8, latency: random.pick([0.1, 1]) },
      weights: { ...weights, daemon: 1, vcpu: 30 }
    }
  }
  if (faults.length > 0 || random.chance(0.5)) return drawn
  // Requests of which the link takes a part, and no other that would take the rest along.
  if (quick && random.chance(0.4)) {
    return {
      ...drawn,
      background: false,
      vcpus: { ...vcpus, destination: random.pick([1, 4]) },
      link: { ...link, back: 16, mostWritten: 200 }
    }
  }
  if (!memfd) return busy
  // Few host pages, most of them there in part when they are given back.
  return {
    ...sized(busy, targetPageSize * 4),
    blocks: blocks.map(({ idstr, length }) => ({ idstr, length: Math.min(length, targetPageSize * 14) })),
    limits: { ...limits, PAGES_BETWEEN_LOOKS: 1 },
    weights: { ...weights, daemon: 30, vcpu: 4 },
    seeks: "leaving"
  }
}

export const draw = (seed: number, abilities: Abilities): Scenario =>
  raced(new Random(seed, 3), drawPlain(seed, abilities))

const drawPlain = (seed: number, abilities: Abilities): Scenario => {
  const random = new Random(seed, 1)
  const [targetPageSize, hostPageSize] = sizes(random)
  const count = random.pick([1, 1, 2, 3])
  const names = NAMES.slice(random.below(2))
  const blocks = Array.from({ length: count }, (_, i) => ({
    idstr: names[i]!,
    length: random.between(2, Math.floor(random.pick([8, 20, 64]) / count) + 2) * targetPageSize
  }))
  const bytes = blocks.reduce((sum, { length }) => sum + length, 400)
  const background = random.chance(0.6)
  const weight = () => random.pick([1, 4, 8, 8, 30])
  const huge = abilities.huge && random.chance(0.1)
  const faults: Array<Fault> = []
  const hostile = random.chance(0.12) ? random.pick(["source", "source", "destination"] as const) : undefined
  if (hostile === undefined && random.chance(0.55)) {
    faults.push(fault(random, bytes))
    if (random.chance(0.25)) faults.push(fault(random, bytes))
  }
  return {
    seed,
    targetPageSize,
    hostPageSize,
    memfd: abilities.memfd && random.chance(0.5),
    huge,
    gap: random.pick([0, 16]) * hostPageSize,
    blocks,
    vcpus: { source: random.between(1, 3), destination: random.between(1, 4) },
    operations: { source: random.pick([3, 12, 30]), destination: random.pick([4, 12, 30]) },
    discards: random.pick([0, 8, 30, 60]),
    seeks: undefined,
    background,
    maxBandwidth: random.chance(0.25) ? random.pick([20_000, 200_000, 4_000_000]) : undefined,
    // With a hostile source the end must not come before all it says was read.
    flags: random.chance(0.4) && hostile !== "source" ? 1 : 0,
    link: nature(random),
    channel: channel(random),
    ringEvents: random.pick([1, 2, 5, 64]),
    quick: seed % 2 === 1,
    interleaving: random.pick([0, 0.1, 0.5]),
    stepNanos: random.pick([2_000, 20_000, 20_000, 200_000]),
    weights: { source: weight(), daemon: weight(), guest: weight(), vcpu: weight() },
    budget: random.pick([2048, 2048, 2048, 40]),
    limits: limits(random, targetPageSize, huge),
    before: random.pick([0, 0.1, 1]),
    actions: random.chance(0.3)
      ? Array.from({ length: random.between(1, 3) }, () => ({
        step: step(random),
        what: random.pick(["limit", "call", "call", "pause", "status", "again"] as const)
      }))
      : [],
    faults,
    hostile
  }
}
