/** What one hostile input came to, and the plain comparison behind every check: a million of them must cost nothing. */
import { getHeapStatistics } from "node:v8"

export interface Finding {
  /** In words. */
  readonly outcome: string
  /** Bytes that were allocated while the fuzzed code ran, garbage and the script's own included. */
  readonly allocated: number
  /** Bytes that the fuzzed code may hold by declaration: its read windows and buffers. */
  readonly window: number
}

/** Bytes in use, inside and outside of the heap; those of ArrayBuffers are part of `external`. */
export const inUse = (): number => {
  const { external_memory, used_heap_size } = getHeapStatistics()
  return external_memory + used_heap_size
}

/** Throws when the two differ. */
export const same = (actual: unknown, expected: unknown, what: string): void => {
  if (actual !== expected) throw new Error(`${what}: ${String(actual)} in the place of ${String(expected)}`)
}
