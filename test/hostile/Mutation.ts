/** What is done to the bytes of a legal stream to make a hostile one, and the pieces it then arrives in. */
import type { Random } from "./Random.ts"

/** Numbers at which fields change their meaning: lengths, counts, flags, page numbers, the edges of words. */
const EDGES = [
  0n,
  1n,
  2n,
  4n,
  0x10n,
  0x20n,
  0x80n,
  255n,
  256n,
  4063n,
  4095n,
  4096n,
  65535n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n
] as const

const put = (bytes: Uint8Array, at: number, width: number, value: bigint) => {
  for (let i = 0; i < width && at + i < bytes.length; i++) {
    bytes[at + i] = Number((value >> BigInt(8 * (width - 1 - i))) & 0xffn)
  }
}

const joined = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => Buffer.concat(parts)

const mutations: ReadonlyArray<(bytes: Uint8Array, random: Random) => Uint8Array> = [
  // One bit.
  (bytes, random) => {
    if (bytes.length > 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8)
    return bytes
  },
  // One byte.
  (bytes, random) => {
    if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256)
    return bytes
  },
  // A field at an edge.
  (bytes, random) => {
    if (bytes.length > 0) put(bytes, random.below(bytes.length), random.pick([1, 4, 8]), random.pick(EDGES))
    return bytes
  },
  // A piece taken out.
  (bytes, random) => {
    const from = random.below(bytes.length + 1)
    return joined(bytes.subarray(0, from), bytes.subarray(Math.min(bytes.length, from + 1 + random.below(16))))
  },
  // A piece put in twice.
  (bytes, random) => {
    const from = random.below(bytes.length + 1)
    const to = Math.min(bytes.length, from + 1 + random.below(64))
    return joined(bytes.subarray(0, to), bytes.subarray(from))
  },
  // Strange bytes put in.
  (bytes, random) => {
    const at = random.below(bytes.length + 1)
    return joined(bytes.subarray(0, at), random.bytes(1 + random.below(12)), bytes.subarray(at))
  },
  // An end too early.
  (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1))
]

/** A copy with up to three things done to it; sometimes with none, for a legal stream may be hostile too. */
export const mutated = (bytes: Uint8Array, random: Random): Uint8Array => {
  let result: Uint8Array = bytes.slice()
  for (let n = random.below(4); n > 0; n--) result = random.pick(mutations)(result, random)
  return result
}

/** The pieces: all at once, a byte at a time, or anything between. */
export const pieces = (bytes: Uint8Array, random: Random): Array<Uint8Array> => {
  const longest = random.pick([1, 3, 9, 64, 4096, Infinity])
  const result: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length;) {
    // Byte by byte through a page would only cost time: the decoder waits for its last byte.
    const n = longest === Infinity || result.length > 200 ? bytes.length : 1 + random.below(longest)
    result.push(bytes.subarray(at, at + n))
    at += n
  }
  return result
}
