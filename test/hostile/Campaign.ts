/**
 * Many hostile inputs, one after the other, each made from its own seed: input i of a campaign with seed S is the only
 * input of one with seed S + i. What is allocated during an input, garbage included, must stay within the declared windows
 * and 1 MiB; buffers always, objects at least once what is garbage has been collected. What is left must not grow.
 */
import * as Decoders from "./Decoders.ts"
import * as ExchangeEnds from "./ExchangeEnds.ts"
import { collected, collectFirst, type Finding } from "./Finding.ts"
import { Random } from "./Random.ts"
import * as ReceivingEnd from "./ReceivingEnd.ts"
import * as SendingEnd from "./SendingEnd.ts"

/** What is fuzzed, each as often as it is named here. */
const targets: Record<string, (random: Random) => Finding | Promise<Finding>> = {
  request: (random) => Decoders.fuzz("request", random),
  ram: (random) => Decoders.fuzz("ram", random),
  section: (random) => Decoders.fuzz("section", random),
  pipe: (random) => Decoders.fuzz("pipe", random),
  savevm: (random) => Decoders.fuzz("savevm", random),
  bitmapList: (random) => Decoders.fuzz("bitmapList", random),
  receive: ReceivingEnd.fuzz,
  send: SendingEnd.fuzz,
  exchange: ExchangeEnds.fuzz
}
const weights: ReadonlyArray<string> = [
  "request",
  "request",
  "ram",
  "ram",
  "section",
  "pipe",
  "savevm",
  "savevm",
  "bitmapList",
  ...Array.from({ length: 4 }, () => "receive"),
  ...Array.from({ length: 4 }, () => "send"),
  "exchange",
  "exchange"
]

export const names: ReadonlyArray<string> = Object.keys(targets)

/** Bytes beyond the declared windows that an input may allocate. */
const ALLOWANCE = 2 ** 20
/** Inputs between two collections. */
const BATCH = 10_000

/** Outcomes that differ in numbers and names only are one. */
const kindOf = (outcome: string): string =>
  outcome.replace(/"(?:[^"\\]|\\.)*"/g, "\"…\"").replace(/0x[0-9a-f]+|\d+/g, "#")

export interface Result {
  readonly inputs: number
  readonly outcomes: ReadonlyMap<string, number>
  /** The most that one input allocated beyond its windows, and the one that did. */
  readonly most: { readonly bytes: number; readonly seed: number }
  /** Inputs whose garbage alone was more than allowed, so that they were measured again by what they keep. */
  readonly measuredAgain: number
  /** Bytes that more were in use at the end than after the first batch. */
  readonly growth: number
}

export interface Options {
  readonly inputs: number
  readonly seed: number
  /** Only this one. */
  readonly target?: string
  readonly onBatch?: (done: number) => void
}

/** An input that something is wrong with, and how it is made again. */
export class Found extends Error {
  constructor(seed: number, target: string, cause: unknown) {
    super(
      `${target}: ${cause instanceof Error ? cause.message : String(cause)}\n` +
        `replay: npm run fuzz -- --inputs 1 --seed ${seed} --target ${target}`,
      { cause }
    )
  }
}

/** Bytes beyond the windows that an input leaves in use while it is at its end: without what was garbage on the way. */
const again = async (name: string, seed: number): Promise<number> => {
  collectFirst(true)
  try {
    const random = new Random(seed)
    random.pick(weights)
    const { allocated, window } = await targets[name]!(random)
    return Math.max(allocated.buffers - window, 0) + allocated.heap
  } finally {
    collectFirst(false)
  }
}

export const run = async ({ inputs, onBatch, seed, target }: Options): Promise<Result> => {
  const outcomes = new Map<string, number>()
  let most = { bytes: 0, seed }
  let measuredAgain = 0
  let settled: number | undefined
  for (let i = 0; i < inputs; i++) {
    const random = new Random(seed + i)
    // Drawn in any case, so that an input is the same with and without `target`.
    const drawn = random.pick(weights)
    const name = target ?? drawn
    try {
      const { allocated, outcome, window } = await targets[name]!(random)
      let beyond = Math.max(allocated.buffers - window, 0) + allocated.heap
      if (beyond > ALLOWANCE && allocated.buffers - window <= ALLOWANCE) {
        beyond = await again(name, seed + i)
        measuredAgain++
      }
      if (beyond > most.bytes) most = { bytes: beyond, seed: seed + i }
      if (beyond > ALLOWANCE) throw new Error(`${beyond} bytes allocated beyond the windows of ${window}`)
      const kind = kindOf(outcome)
      outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1)
    } catch (cause) {
      throw new Found(seed + i, name, cause)
    }
    if ((i + 1) % BATCH === 0) {
      settled ??= collected()
      onBatch?.(i + 1)
    }
  }
  const growth = settled === undefined ? 0 : collected() - settled
  if (growth > ALLOWANCE) throw new Error(`${growth} bytes more are kept after ${inputs} inputs than after ${BATCH}`)
  return { inputs, outcomes, most, measuredAgain, growth }
}
