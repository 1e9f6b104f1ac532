/** What one hostile input came to, and the plain comparison behind every check: a million of them must cost nothing. */
import { getHeapStatistics, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

export interface Finding {
  /** In words. */
  readonly outcome: string
  /** What was allocated while the fuzzed code ran, garbage and the script's own included. */
  readonly allocated: Use
  /** Bytes that the fuzzed code may hold by declaration: its read windows and buffers. */
  readonly window: number
}

/** Bytes in use: outside of the heap, where every buffer is, and inside. */
export interface Use {
  readonly buffers: number
  readonly heap: number
}

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
let collecting = false

/** From now on every look at what is in use comes after a collection, or does not. */
export const collectFirst = (on: boolean): void => {
  collecting = on
}

export const inUse = (): Use => {
  if (collecting) collect()
  const { external_memory, used_heap_size } = getHeapStatistics()
  return { buffers: external_memory, heap: used_heap_size }
}

/** What came to be in use since then, or from then to `until`. */
export const since = (then: Use, until: Use = inUse()): Use => ({
  buffers: until.buffers - then.buffers,
  heap: until.heap - then.heap
})

/** Bytes in use after a collection. */
export const collected = (): number => {
  collect()
  collect()
  const { external_memory, used_heap_size } = getHeapStatistics()
  return external_memory + used_heap_size
}

/** Throws when the two differ. */
export const same = (actual: unknown, expected: unknown, what: string): void => {
  if (actual !== expected) throw new Error(`${what}: ${String(actual)} in the place of ${String(expected)}`)
}
