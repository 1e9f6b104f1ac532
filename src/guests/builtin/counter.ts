/**
 * A guest that watches its own memory: every page holds a pattern made of its index and a generation, and each slice
 * verifies a few pages and writes their next generation. A single wrong byte anywhere, a zero page, a stale page or two
 * exchanged ones are noticed, by the slice that comes by or by `{"op":"verify"}`, and never forgotten.
 *
 * Every eighth page is filled with one byte, so that a migration also has pages to compress. Calls: `status`, `verify`,
 * `read` (`offset`: checks that page only), `flip` (`offset`: damages a byte on purpose).
 */
import * as Guest from "../Guest.ts"

const idstr = "pc.ram"
const defaultMiB = 64
const wordsPerPage = Guest.pageSize / 4
/** One page in this many is uniform. */
const uniformEvery = 8
/** Pages verified and rewritten in a slice: a few, because at a destination each may have to be waited for. */
const pagesPerSlice = 16
/** Odd, so that the words of a page differ; the golden ratio, so that neighbours differ in every byte. */
const wordStride = 0x9e3779b1 | 0

interface State {
  /** Of the pages from `cursor` on; those before it are one ahead. */
  generation: number
  /** The page that the next slice begins with. */
  cursor: number
  steps: number
  /** Offset of the first wrong byte that was ever seen. */
  badOffset: number | null
}

type Context = Guest.Context<typeof idstr, State>

export default Guest.memory<typeof idstr, State>({
  blocks: ({ memoryMiB = defaultMiB }) => [{ idstr, length: memoryMiB * 2 ** 20 }],

  start: (ctx) => {
    ctx.state = { generation: 1, cursor: 0, steps: 0, badOffset: null }
    const words = wordsOf(ctx)
    for (let page = 0; page < pageCount(words); page++) write(words, page, 1)
  },

  step: (ctx) => {
    const { state } = ctx
    const words = wordsOf(ctx)
    const pages = pageCount(words)
    for (let n = 0; n < pagesPerSlice; n++) {
      check(state, words, state.cursor, state.generation)
      write(words, state.cursor, state.generation + 1)
      state.cursor++
      if (state.cursor === pages) {
        state.cursor = 0
        state.generation = (state.generation + 1) | 0
      }
    }
    state.steps++
    return { restMillis: 1 }
  },

  call: (ctx, request) => {
    const words = wordsOf(ctx)
    switch (request?.op) {
      case "status":
        return report(ctx, words)
      case "verify":
        for (let page = 0; page < pageCount(words); page++) check(ctx.state, words, page, generationOf(ctx.state, page))
        return report(ctx, words)
      case "read": {
        const offset = checkedOffset(ctx, request.offset)
        const page = Math.floor(offset / Guest.pageSize)
        check(ctx.state, words, page, generationOf(ctx.state, page))
        return { ...report(ctx, words), offset, value: ctx.memory[idstr][offset] }
      }
      case "flip": {
        const offset = checkedOffset(ctx, request.offset)
        const value = (ctx.memory[idstr][offset] ?? 0) ^ 0xff
        ctx.memory[idstr][offset] = value
        return { offset, value }
      }
      default:
        throw new TypeError("counter knows {op: \"status\" | \"verify\"} and {op: \"read\" | \"flip\", offset}")
    }
  },

  save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),

  restore: (ctx, bytes) => {
    const state = Object(JSON.parse(new TextDecoder().decode(bytes))) as State
    const { badOffset, cursor, generation, steps } = state
    const whole = [generation, steps].every(Number.isSafeInteger) && Number.isSafeInteger(badOffset ?? 0)
    if (!whole || !Number.isSafeInteger(cursor) || cursor < 0 || cursor >= pageCount(wordsOf(ctx))) {
      throw new Error("this is not the device state of a counter of this size")
    }
    ctx.state = { generation, cursor, steps, badOffset: badOffset ?? null }
  }
})

const wordsOf = (ctx: Context) => {
  const view = ctx.memory[idstr]
  return new Int32Array(view.buffer, view.byteOffset, view.length / 4)
}

const pageCount = (words: Int32Array) => words.length / wordsPerPage

const generationOf = (state: State, page: number) => page < state.cursor ? state.generation + 1 : state.generation

const report = (ctx: Context, words: Int32Array) => {
  const { badOffset, cursor, generation, steps } = ctx.state
  return {
    ok: badOffset === null,
    ...(badOffset === null ? {} : { badOffset }),
    generation,
    cursor,
    steps,
    pages: pageCount(words),
    bytes: words.byteLength
  }
}

const checkedOffset = (ctx: Context, offset: unknown): number => {
  const length = ctx.memory[idstr].length
  if (typeof offset !== "number" || !Number.isInteger(offset) || offset < 0 || offset >= length) {
    throw new RangeError(`the offset ${String(offset)} is not within 0…${length - 1}`)
  }
  return offset
}

/** A bijection of 32-bit words (the finalizer of MurmurHash 3), so that no two pages of a generation are alike. */
const mix = (word: number) => {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35)
  return word ^ (word >>> 16)
}

/** First word of a page and what is added from word to word. */
const seedOf = (page: number, generation: number) => mix(page ^ mix(generation))
const strideOf = (page: number) => page % uniformEvery === uniformEvery - 1 ? 0 : wordStride
/** A uniform page's four equal bytes, never zero: a page that is missing reads zero. */
const uniformWord = (seed: number) => Math.imul(1 + (seed >>> 0) % 255, 0x01010101)
const firstWord = (page: number, generation: number) => {
  const seed = seedOf(page, generation)
  return strideOf(page) === 0 ? uniformWord(seed) : seed
}

// Hot path: a plain loop over words, about as fast as memory.
const write = (words: Int32Array, page: number, generation: number) => {
  const stride = strideOf(page)
  let expected = firstWord(page, generation)
  const end = (page + 1) * wordsPerPage
  for (let at = page * wordsPerPage; at < end; at++) {
    words[at] = expected
    expected = (expected + stride) | 0
  }
}

const check = (state: State, words: Int32Array, page: number, generation: number) => {
  const stride = strideOf(page)
  let expected = firstWord(page, generation)
  const end = (page + 1) * wordsPerPage
  for (let at = page * wordsPerPage; at < end; at++) {
    if (words[at] !== expected) {
      state.badOffset ??= at * 4 + firstDifferingByte(words[at]! ^ expected)
      return
    }
    expected = (expected + stride) | 0
  }
}

/** Of a word as it lies in memory, little-endian. */
const firstDifferingByte = (difference: number) => Math.floor((31 - Math.clz32(difference & -difference)) / 8)
