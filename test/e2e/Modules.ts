/**
 * Guest modules of a user's own, written into a directory outside the checkout; they import the package by file path.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type * as Guest from "../../src/guests/Guest.ts"
import { PAGE } from "./Wire.ts"

const index = fileURLToPath(new URL("../../src/index.ts", import.meta.url))

const write = (dir: string, name: string, text: string): string => {
  const path = join(dir, name)
  writeFileSync(path, `import { Guest } from ${JSON.stringify(index)}\n${text}`)
  return path
}

/** Blocks of the {@link notebook}; two, because names and contexts matter on the wire only then. */
export const blocks = [
  { idstr: "pc.ram", length: 8 * 2 ** 20 },
  { idstr: "vga.vram", length: 2 ** 18 }
] as const

/** The word that fills a page at first: every fourth page is of one byte, which is not 0. */
const word = (block: number, page: number) =>
  page % 4 === 3
    ? (1 + (block * 131 + page) % 255) * 0x01010101 >>> 0
    : (page * 2654435761 + block * 40503 + 1) >>> 0

const stride = (page: number) => page % 4 === 3 ? 0 : 0x9e3779b1

/** The contents of a page of a {@link notebook} that has not been written to. */
export const contents = (block: number, page: number): Buffer => {
  const bytes = Buffer.alloc(PAGE)
  let value = word(block, page)
  for (let at = 0; at < PAGE; at += 4) {
    bytes.writeUInt32LE(value, at)
    value = (value + stride(page)) >>> 0
  }
  return bytes
}

/**
 * A guest of plain memory that knows what every byte of it must be. While it works, each slice writes its number to one
 * of the last 64 pages of `pc.ram`; at rest it touches no memory of its own accord, so that pages stay missing for as
 * long as a test wants. Calls: `ping` (touches nothing), `add` (counts), `work`, `rest`, `verify`, `read` (`block`, `page`), `discard`.
 * `ram`: what the first block is made of.
 */
export const notebook = (
  dir: string,
  name = "notebook.mjs",
  ram: Pick<Guest.Block, "backing" | "hugePageSize"> = {}
): string =>
  write(
    dir,
    name,
    `
const blocks = ${JSON.stringify([{ ...blocks[0], ...ram }, blocks[1]])}
const word = (block, page) => ${word.toString().replace(/^.*?=>/s, "")}
const stride = (page) => ${stride.toString().replace(/^.*?=>/s, "")}
const words = (ctx, block) => {
  const view = ctx.memory[blocks[block].idstr]
  return new Uint32Array(view.buffer, view.byteOffset, view.length / 4)
}
const journal = 64
const first = blocks[0].length / 4096 - journal
/** What the page holds, as word and stride. */
const expected = (state, block, page) => {
  if (state.discarded.includes(block + ":" + page)) return [0, 0]
  if (block === 0 && page >= first && state.written[page - first] > 0) return [state.written[page - first], 0]
  return [word(block, page), stride(page)]
}
const wrong = (ctx, block, page) => {
  const all = words(ctx, block)
  let [value, step] = expected(ctx.state, block, page)
  for (let at = page * 1024; at < (page + 1) * 1024; at++) {
    if (all[at] !== value) return at * 4
    value = (value + step) >>> 0
  }
}
export default Guest.memory({
  blocks,
  start: (ctx) => {
    ctx.state = { steps: 0, count: 0, working: false, written: Array.from({ length: journal }, () => 0), discarded: [] }
    blocks.forEach((_, block) => {
      const all = words(ctx, block)
      for (let page = 0; page < all.length / 1024; page++) {
        let value = word(block, page)
        for (let at = page * 1024; at < (page + 1) * 1024; at++) {
          all[at] = value
          value = (value + stride(page)) >>> 0
        }
      }
    })
  },
  step: (ctx) => {
    const { state } = ctx
    state.steps++
    if (state.working) {
      const at = state.steps % journal
      words(ctx, 0).fill(state.steps, (first + at) * 1024, (first + at + 1) * 1024)
      state.written[at] = state.steps
    }
    return { restMillis: 1 }
  },
  call: (ctx, { block = 0, length = 4096, offset, op, page }) => {
    const { state } = ctx
    switch (op) {
      case "ping":
        return { pong: true }
      case "add":
        return { count: ++state.count }
      case "work":
        state.working = true
        return { working: true }
      case "rest":
        state.working = false
        return { working: false }
      case "read": {
        const at = wrong(ctx, block, page)
        return { ok: at === undefined, at }
      }
      case "discard": {
        ctx.discard(blocks[block].idstr, offset, length)
        for (let at = offset; at < offset + length; at += 4096) state.discarded.push(block + ":" + at / 4096)
        return { discarded: length / 4096 }
      }
      case "verify": {
        let pages = 0
        for (let block = 0; block < blocks.length; block++) {
          for (let page = 0; page < blocks[block].length / 4096; page++, pages++) {
            const at = wrong(ctx, block, page)
            if (at !== undefined) return { ok: false, block, at }
          }
        }
        return { ok: true, pages, count: state.count }
      }
      default:
        throw new Error("notebook does not know " + op)
    }
  },
  save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),
  restore: (ctx, bytes) => {
    ctx.state = JSON.parse(new TextDecoder().decode(bytes))
  }
})
`
  )

/** Pages of a {@link notebook}. */
export const pages = blocks.reduce((sum, { length }) => sum + length / PAGE, 0)

/** The device state of a fresh {@link notebook}. */
export const freshState = (): Buffer =>
  Buffer.from(
    JSON.stringify({ steps: 0, count: 0, working: false, written: Array.from({ length: 64 }, () => 0), discarded: [] })
  )

/**
 * A guest that is a WebAssembly instance: `store` and `load` of words and a mutable global that counts the stores. The
 * source's memory grows to 4 MiB when it starts, so the destination's has to.
 */
export const abacus = (dir: string): string => {
  const name = (text: string) => [text.length, ...Buffer.from(text)]
  const section = (id: number, ...content: ReadonlyArray<number>) => [id, content.length, ...content]
  const body = (...code: ReadonlyArray<number>) => [code.length + 2, 0, ...code, 0x0b]
  const wasm = [
    0,
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0,
    ...section(1, 2, 0x60, 2, 0x7f, 0x7f, 0, 0x60, 1, 0x7f, 1, 0x7f), // types: (i32, i32) → (), (i32) → i32
    ...section(3, 2, 0, 1), // functions: store, load
    ...section(5, 1, 1, 1, 0x80, 1), // memory: 1 to 128 pages of 64 KiB
    ...section(6, 1, 0x7f, 1, 0x41, 0, 0x0b), // global: i32, mutable, 0
    ...section(7, 4, ...name("memory"), 2, 0, ...name("count"), 3, 0, ...name("store"), 0, 0, ...name("load"), 0, 1),
    ...section(
      10,
      2,
      // local.get 0, local.get 1, i32.store; global.get 0, i32.const 1, i32.add, global.set 0
      ...body(0x20, 0, 0x20, 1, 0x36, 2, 0, 0x23, 0, 0x41, 1, 0x6a, 0x24, 0),
      ...body(0x20, 0, 0x28, 2, 0) // local.get 0, i32.load
    )
  ]
  return write(
    dir,
    "abacus.mjs",
    `
const value = (at) => Math.imul(at + 1, 0x9e3779b1)
export default Guest.wasm({
  module: Uint8Array.from(${JSON.stringify(wasm)}),
  maximum: 128 * 65536,
  start: ({ exports }) => {
    exports.memory.grow(63)
    for (let at = 0; at < 64 * 65536; at += 4) exports.store(at, value(at))
  },
  call: ({ exports, memory }, { op, at }) => {
    switch (op) {
      case "store":
        exports.store(at, value(at))
        return { count: exports.count.value }
      case "verify":
        for (let at = 0; at < 64 * 65536; at += 4) {
          if (exports.load(at) !== value(at)) return { ok: false, at }
        }
        return { ok: true, count: exports.count.value, bytes: memory["wasm.memory"].length }
    }
  }
})
`
  )
}

/** A guest of one block that does nothing. */
export const bare = (dir: string, block: Omit<Guest.Block, "idstr">): string =>
  write(
    dir,
    "bare.mjs",
    `export default Guest.memory({ blocks: [${JSON.stringify({ idstr: "pc.ram", ...block })}] })\n`
  )

/** A guest of one page whose `restore` looks at it; asked, it says what it saw. */
export const touching = (dir: string): string =>
  write(
    dir,
    "touching.mjs",
    `
export default Guest.memory({
  blocks: [{ idstr: "pc.ram", length: 4096 }],
  start: (ctx) => {
    ctx.memory["pc.ram"].fill(77)
  },
  call: (ctx) => ({ seen: ctx.state.seen }),
  restore: (ctx) => {
    ctx.state.seen = ctx.memory["pc.ram"][4000]
  }
})
`
  )

/** A module whose named function, or whose import, throws "no luck"; otherwise one page and nothing to do. */
export const throwing = (dir: string, where: string): string =>
  write(
    dir,
    `throws-in-${where}.mjs`,
    `
const fail = (where) => {
  if (where === ${JSON.stringify(where)}) throw new Error("no luck")
}
fail("import")
export default Guest.memory({
  blocks: [{ idstr: "pc.ram", length: 4096 }],
  start: () => fail("start"),
  step: (ctx) => {
    if (ctx.state.armed) fail("step")
    return { restMillis: 1 }
  },
  call: (ctx, request) => {
    fail("call")
    ctx.state.armed = request?.arm === true
    return "armed"
  },
  save: () => {
    fail("save")
    return new Uint8Array(0)
  },
  restore: () => fail("restore")
})
`
  )

/**
 * The built-in counter with a witness outside of its memory: the moment it sees a wrong byte, a zero page for one, it
 * writes that to a file, which is there whatever becomes of the process.
 */
export const watched = (dir: string): { readonly module: string; readonly witness: string } => {
  const witness = join(dir, "wrong-byte")
  const counter = fileURLToPath(new URL("../../src/guests/builtin/counter.ts", import.meta.url))
  const module = write(
    dir,
    "watched.mjs",
    `import counter from ${JSON.stringify(counter)}
import { appendFileSync } from "node:fs"
export default Guest.memory({
  ...counter,
  step: (ctx) => {
    const rest = counter.step(ctx)
    if (ctx.state.badOffset !== null) appendFileSync(${
      JSON.stringify(witness)
    }, process.pid + " " + ctx.state.badOffset + "\\n")
    return rest
  }
})
`
  )
  return { module, witness }
}
