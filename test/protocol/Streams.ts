/** Bytes for decoders: hexadecimal, every way of cutting them, and the plain list of what comes out. */
import type { Decoder, Malformed, Outcome } from "../../src/protocol/Decoder.ts"

/** `hex("01 06", "pc.ram", "00")`: pairs of digits become bytes, anything else its characters. */
export const hex = (...parts: ReadonlyArray<string>): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) =>
    /^([0-9a-f]{2}\s*)+$/.test(part)
      ? part.match(/[0-9a-f]{2}/g)!.map((pair) => parseInt(pair, 16))
      : [...new TextEncoder().encode(part)]
  ))

export const be32 = (n: number) => Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n)
export const be64 = (n: number | bigint) => {
  const out = new Uint8Array(8)
  new DataView(out.buffer).setBigUint64(0, BigInt(n))
  return out
}
export const le64 = (n: number | bigint) => be64(n).reverse()

export const join = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/** Numbers that are the same in every run: uniform in [0, 1). */
export const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

/** Cuts bytes into pieces of random lengths from 1 up to `most`. */
export const cut = (bytes: Uint8Array, next: () => number, most: number): Array<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length;) {
    const length = 1 + Math.floor(next() * most)
    pieces.push(bytes.subarray(at, at + length))
    at += length
  }
  return pieces
}

/** What a decoder made of some input. Views are copied, for the decoder reuses its buffer. */
export interface Decoded<A> {
  readonly messages: Array<A>
  readonly offsets: Array<number>
  /** The answer that stays. */
  readonly last: Outcome<A>
}

// A view is cut out first: cloned as it is, it would bring the whole buffer under it.
const keep = <A>(message: A): A =>
  Object.fromEntries(
    Object.entries(message as object).map(([name, value]) => [
      name,
      value instanceof Uint8Array ? value.slice() : structuredClone(value)
    ])
  ) as A

/** Everything that comes out until the decoder wants more or has ended. */
export const take = <A>(
  decoder: Decoder<A>,
  into: Decoded<A> = { messages: [], offsets: [], last: { _tag: "NeedMore" } }
) => {
  while (true) {
    const outcome = decoder.next()
    if (outcome._tag !== "Message") return { ...into, last: outcome }
    into.messages.push(keep(outcome.message))
    into.offsets.push(outcome.offset)
  }
}

/** Pushes the pieces one by one, with the end of the input after them. */
export const decodeAll = <A>(decoder: Decoder<A>, ...pieces: ReadonlyArray<Uint8Array>): Decoded<A> => {
  let decoded: Decoded<A> = { messages: [], offsets: [], last: { _tag: "NeedMore" } }
  for (const piece of pieces) {
    decoder.push(piece)
    decoded = take(decoder, decoded)
  }
  decoder.finish()
  return take(decoder, decoded)
}

/** The complaint about an input, given without the end of it: it must be there already. */
export const complaint = (decoder: Decoder<unknown>, ...pieces: ReadonlyArray<Uint8Array>): Malformed | undefined => {
  for (const piece of pieces) decoder.push(piece)
  const { last } = take(decoder)
  return last._tag === "Malformed" ? last : undefined
}
