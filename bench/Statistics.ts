/**
 * What pairs of runs say. Absolute times of a shared machine say little, so the two sides run in turn and each pair gives
 * a ratio; the best of each side gives another one, which a noisy neighbour cannot make worse than it is.
 */

export interface Ratio {
  /** Best of ours over best of the other side. */
  readonly best: number
  /** Median over the pairs. */
  readonly median: number
  /** Lower and upper quartile over the pairs. */
  readonly quartiles: readonly [number, number]
}

export const quantile = (values: ReadonlyArray<number>, q: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const below = sorted[Math.floor(at)]!
  return below + (sorted[Math.ceil(at)]! - below) * (at - Math.floor(at))
}

/** `better`: which of two values is the good one. */
export const best = (values: ReadonlyArray<number>, better: "lower" | "higher"): number =>
  better === "lower" ? Math.min(...values) : Math.max(...values)

/** Both of equal length, pair by pair. */
export const ratio = (
  ours: ReadonlyArray<number>,
  other: ReadonlyArray<number>,
  better: "lower" | "higher"
): Ratio => {
  const pairs = ours.map((value, i) => value / other[i]!)
  return {
    best: best(ours, better) / best(other, better),
    median: quantile(pairs, 0.5),
    quartiles: [quantile(pairs, 0.25), quantile(pairs, 0.75)]
  }
}
