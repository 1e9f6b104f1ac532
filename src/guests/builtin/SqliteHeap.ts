/**
 * sql.js with its linear memory in hand: loads the npm package unchanged, gives its memory an exact size, and opens
 * databases that live in that memory only. `new Database()` of sql.js would keep its file in the glue's own file system,
 * in the JavaScript heap, which does not move.
 */
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import type { Database, SqlJsStatic } from "sql.js"
import initSqlJs from "sql.js"
import { engine, pageBytes, type WasmExports, type WasmImports, type WasmMemory } from "../WasmTypes.ts"

/** What sql.js declares 2 GiB of in its module. */
export const maximum = 2 ** 31

/** The parts of sql.js that its types leave out. */
interface Glue extends SqlJsStatic {
  _malloc(bytes: number): number
  _free(pointer: number): void
  _sqlite3_close_v2(connection: number): number
  _sqlite3_open(filename: number, pointerOut: number): number
}

export interface SqliteHeap {
  readonly memory: WasmMemory
  /** Grows the memory to exactly `bytes`, with the glue's own views of it. */
  readonly grow: (bytes: number) => void
  /** A new `:memory:` database, and where its connection lies in the memory. */
  readonly open: () => { readonly database: Database; readonly connection: number }
  /** Closes a connection; its `Database` must not be used any more. Its own `close` looks for a file. */
  readonly close: (connection: number) => void
  /** The database of a connection that is in the memory already. Touches the stack only. */
  readonly adopt: (connection: number) => Database
}

/** Both sides of a migration must load with the same `bytes`: what the glue keeps in JavaScript is then the same. */
export const load = async (bytes: number): Promise<SqliteHeap> => {
  const file = createRequire(import.meta.url).resolve("sql.js/dist/sql-wasm.wasm")
  const module = await engine.compile(await readFile(file))
  let memory: WasmMemory | undefined
  let lastImport: ((...args: ReadonlyArray<unknown>) => unknown) | undefined
  let refused: ((error: unknown) => void) | undefined
  const instantiateWasm = (imports: WasmImports, done: (instance: { readonly exports: WasmExports }) => void) => {
    const noted: WasmImports = {}
    for (const [space, names] of Object.entries(imports)) {
      const copies: Record<string, unknown> = noted[space] = {}
      for (const [name, value] of Object.entries(names)) {
        const original = value as (...args: ReadonlyArray<unknown>) => unknown
        copies[name] = (...args: ReadonlyArray<unknown>) => {
          lastImport = original
          return original(...args)
        }
      }
    }
    engine.instantiate(module, noted).then((instance) => {
      memory = Object.values(instance.exports).find((value): value is WasmMemory => value instanceof engine.Memory)
      done(instance)
    }).catch((error: unknown) => refused?.(error))
    return {}
  }
  const glue = await new Promise<Glue>((resolve, reject) => {
    refused = reject
    // The deprecated replacements of SQLite's own functions would be registered in every connection.
    const config = { instantiateWasm, useOldExtensionFunctions: false }
    initSqlJs(config as unknown as Parameters<typeof initSqlJs>[0]).then((sql) => resolve(sql as Glue), reject)
  })
  if (memory === undefined) throw new Error("sql.js exports no memory")
  const heap = memory

  /** Whatever grows the memory during `body` grows it to exactly `bytes`: emscripten alone would add a fifth. */
  const exactly = (bytes: number, body: () => void) => {
    const delta = (bytes - heap.buffer.byteLength) / pageBytes
    heap.grow = () => engine.Memory.prototype.grow.call(heap, delta)
    try {
      body()
    } finally {
      delete (heap as Partial<WasmMemory>).grow
    }
    if (heap.buffer.byteLength !== bytes) throw new Error(`the heap of sql.js did not grow to ${bytes} bytes`)
  }

  const initial = heap.buffer.byteLength
  if (!(bytes >= initial + 16 * pageBytes) || bytes > maximum || bytes % pageBytes !== 0) {
    throw new RangeError(`the heap of sql.js can have ${initial + 16 * pageBytes} to ${maximum} bytes, not ${bytes}`)
  }
  // When the allocator has used up the memory it asks for more, through the glue: that import is remembered, since its
  // name is minified. Little at a time, so that it never believes to have got more than `exactly` gave.
  exactly(bytes, () => {
    const held: Array<number> = []
    while (heap.buffer.byteLength === initial && held.length * pageBytes < initial) held.push(glue._malloc(pageBytes))
    for (const pointer of held) glue._free(pointer)
  })
  const resize = lastImport as ((bytes: number) => boolean) | undefined
  if (resize === undefined) throw new Error("sql.js did not grow its heap through its glue")

  const opening = (open: (pointerOut: number) => number) => {
    const original = glue._sqlite3_open
    // The constructor asks for this function by name each time; all else about a `Database` is its own business.
    glue._sqlite3_open = (_filename, pointerOut) => open(pointerOut)
    try {
      return new glue.Database()
    } finally {
      glue._sqlite3_open = original
    }
  }
  return {
    memory: heap,
    grow: (bytes) => exactly(bytes, () => resize(bytes)),
    open: () => {
      const original = glue._sqlite3_open
      const name = new TextEncoder().encode(":memory:\0")
      const pointer = glue._malloc(name.length)
      new Uint8Array(heap.buffer).set(name, pointer)
      let connection = 0
      const database = opening((pointerOut) => {
        const result = original(pointer, pointerOut)
        connection = new DataView(heap.buffer).getUint32(pointerOut, true)
        return result
      })
      glue._free(pointer)
      return { database, connection }
    },
    close: (connection) => {
      glue._sqlite3_close_v2(connection)
    },
    adopt: (connection) =>
      opening((pointerOut) => {
        new DataView(heap.buffer).setUint32(pointerOut, connection, true)
        return 0
      })
  }
}
