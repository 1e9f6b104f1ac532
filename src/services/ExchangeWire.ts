/**
 * What the references of an exchange's two halves share: big-endian words, bitmaps, and the log that a call leaves behind.
 *
 * Hot path: no Effect per page.
 */
import { LOG_WORDS } from "./PageExchange.ts"

/** Log entries that a call leaves room for; pages of one request that are answered. */
export const MOST_AT_ONCE = 16
export const WORD = 8
export const REQUEST_HEAD = 5
const HALF = 0x100000000

export const getHalf = (from: Uint8Array, at: number): number =>
  ((from[at]! << 24) | (from[at + 1]! << 16) | (from[at + 2]! << 8) | from[at + 3]!) >>> 0
export const getWord = (from: Uint8Array, at: number): number => getHalf(from, at) * HALF + getHalf(from, at + 4)
export const putHalf = (into: Uint8Array, at: number, half: number) => {
  for (let i = 0; i < 4; i++) into[at + i] = half >>> (24 - 8 * i)
}
export const putWord = (into: Uint8Array, at: number, word: number) => {
  putHalf(into, at, Math.floor(word / HALF))
  putHalf(into, at + 4, word % HALF)
}
export const test = (bits: Uint8Array, index: number): boolean => ((bits[index >> 3] ?? 0) >> (index & 7) & 1) === 1

/** The log behind the fixed words of a plan. */
export class Log {
  count = 0
  readonly #plan: Float64Array
  readonly #fixed: number
  constructor(plan: Float64Array, fixed: number) {
    this.#plan = plan
    this.#fixed = fixed
  }
  hasRoom(entries: number): boolean {
    return this.#fixed + (this.count + entries) * LOG_WORDS <= this.#plan.length
  }
  add(...entry: readonly [number, number, number, number]): void {
    this.#plan.set(entry, this.#fixed + this.count++ * LOG_WORDS)
  }
  word(entry: number, index: number): number {
    return this.#plan[this.#fixed + entry * LOG_WORDS + index]!
  }
  /** How many of `count` pages from `first` on are in no entry, up to the first that is. `runOf`: an entry's pages. */
  without(first: number, count: number, runOf: (entry: number) => readonly [from: number, pages: number]): number {
    let most = count
    for (let i = 0; i < this.count; i++) {
      const [from, pages] = runOf(i)
      if (from + pages > first && from < first + most) most = Math.max(0, from - first)
    }
    return most
  }
}
