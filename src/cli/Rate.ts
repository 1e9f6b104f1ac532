/**
 * RATE of the command line: bytes per second with an optional `k`, `M` or `G`, powers of 1024. `unlimited` takes a limit
 * away again. What cannot be meant is refused instead of being rounded to something else: zero, signs, other units.
 */
import * as Option from "effect/Option"

/** Bytes per second; `undefined` is unlimited. */
export type Rate = number | undefined

const powers: Record<string, number> = { "": 0, k: 1, m: 2, g: 3 }

export const expected =
  `bytes per second above zero with an optional k, M or G (powers of 1024), for example 100M, or "unlimited"`

export const parse = (text: string): Option.Option<{ readonly bytesPerSecond: Rate }> => {
  if (text === "unlimited") return Option.some({ bytesPerSecond: undefined })
  const match = /^(\d{1,15}(?:\.\d{1,9})?)([kmg]?)$/i.exec(text)
  if (match === null) return Option.none()
  const bytesPerSecond = Math.floor(Number(match[1]) * 1024 ** powers[match[2]!.toLowerCase()]!)
  return bytesPerSecond >= 1 && Number.isSafeInteger(bytesPerSecond) ? Option.some({ bytesPerSecond }) : Option.none()
}

/** For people: `1.5M/s`. */
export const format = (rate: Rate): string => {
  if (rate === undefined) return "unlimited"
  const power = Math.min(3, Math.floor(Math.log2(rate) / 10))
  const scaled = rate / 1024 ** power
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(1)}${["", "k", "M", "G"][power]}/s`
}
