/**
 * A guest that is an SQLite database: npm `sql.js`, which is SQLite compiled to WebAssembly, unchanged. Its connection,
 * its pages and its caches lie in the linear memory; what travels as device state is where the connection is.
 *
 * `start` fills the table `items` (deterministic contents, an index on its text key) to three quarters of the memory. Each
 * slice is a little transaction, about a thousand a second: it counts in the table `work` and looks an item up. Calls: `{sql, params?}`,
 * `{op: "get", key?}`, `{op: "hash"}` (of all items), `{op: "integrity"}`, `{op: "stats"}`.
 */
import { createHash } from "node:crypto"
import type { BindParams, Database, SqlValue } from "sql.js"
import * as Guest from "../Guest.ts"
import { load, maximum, type SqliteHeap } from "./SqliteHeap.ts"

const defaultMiB = 128
/** Below this the heap of sql.js, its stack and static data leave no room worth filling. */
const minimumMiB = 24
/** Of the memory; the rest is SQLite's bookkeeping per page, the stack, and room for new rows. */
const filled = 0.75

interface State {
  readonly database: Database
  readonly connection: number
}

type Context = Guest.WasmContext<State, SqliteHeap>

export default Guest.wasm<State, SqliteHeap>({
  maximum,

  instantiate: async ({ options }) => {
    const memoryMiB = options.memoryMiB ?? defaultMiB
    if (!(memoryMiB >= minimumMiB && memoryMiB * 2 ** 20 <= maximum)) {
      throw new RangeError(`sqlite takes ${minimumMiB} to ${maximum / 2 ** 20} MiB of memory, not ${memoryMiB}`)
    }
    const heap = await load(memoryMiB * 2 ** 20)
    rehearse(heap)
    return { memory: heap.memory, exports: heap }
  },

  grow: (ctx, bytes) => ctx.exports.grow(bytes),

  start: (ctx) => {
    ctx.state = ctx.exports.open()
    fill(ctx.state.database, ctx.memory[Guest.wasmBlock].length * filled)
  },

  step: ({ state: { database } }) => {
    work(database)
    return { restMillis: 1 }
  },

  call: (ctx, request) => {
    const { database } = ctx.state
    if (typeof request?.sql === "string") return query(database, request.sql, request.params)
    switch (request?.op) {
      case "get":
        return get(database, request.key)
      case "hash":
        return hash(database)
      case "integrity": {
        const { rows } = query(database, "PRAGMA integrity_check")
        return { ok: rows.length === 1 && rows[0]?.[0] === "ok", result: rows.map((row) => row[0]) }
      }
      case "stats":
        return stats(ctx)
      default:
        throw new TypeError("sqlite knows {sql, params?} and {op: \"get\" | \"hash\" | \"integrity\" | \"stats\"}")
    }
  },

  save: (ctx) => {
    for (const [, schema, file] of query(ctx.state.database, "PRAGMA database_list").rows) {
      // Such a file would be in the JavaScript heap and stay behind.
      if (file !== null && file !== "") throw new Error(`the attached database ${String(schema)} is not in memory`)
    }
    return new TextEncoder().encode(JSON.stringify({ connection: ctx.state.connection }))
  },

  restore: (ctx, bytes) => {
    const { connection } = Object(JSON.parse(new TextDecoder().decode(bytes))) as Partial<State>
    const length = ctx.memory[Guest.wasmBlock].length
    if (connection === undefined || !Number.isInteger(connection) || connection <= 0 || connection >= length) {
      throw new Error("this is not the device state of an sqlite guest")
    }
    ctx.state = { database: ctx.exports.adopt(connection), connection }
  }
})

const work = (database: Database) => {
  database.run("BEGIN")
  database.run("UPDATE work SET ticks = ticks + 1")
  // Walks over the items in an order that looks random: the golden ratio of 2^32 is odd.
  const row = one(database, `SELECT length(body) = size FROM items WHERE key = ${anyKey}`)
  database.run("COMMIT")
  if (row?.[0] !== 1) throw new Error("an item is missing or has the wrong size")
}

/** WebAssembly is compiled function by function when first called: at a destination that would be part of the downtime. */
const rehearse = (heap: SqliteHeap) => {
  const { connection, database } = heap.open()
  fill(database, 2 ** 18)
  work(database)
  get(database, undefined)
  get(database, "item-1")
  heap.close(connection)
}

/** The key of an item that the number of ticks picks. */
const anyKey = `(SELECT 'item-' || (1 + (ticks * 2654435761 & 4294967295) % items) FROM work)`

const fill = (database: Database, bytes: number) => {
  // Without it sorting would spill into files of the glue.
  database.run(`
    PRAGMA temp_store = MEMORY;
    CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE work (ticks INTEGER NOT NULL, items INTEGER NOT NULL);
  `)
  const insert = database.prepare("INSERT INTO items VALUES (?, ?, ?, ?)")
  const random = new Uint32Array(1024)
  let word = 0x2545f491
  let id = 0
  while (pagesOf(database).bytes < bytes) {
    database.run("BEGIN")
    for (let n = 0; n < 500; n++) {
      for (let at = 0; at < random.length; at++) {
        // Xorshift: deterministic, and nothing that compresses.
        word ^= word << 13
        word ^= word >>> 17
        word ^= word << 5
        random[at] = word
      }
      id++
      const body = new Uint8Array(random.buffer, 0, 1000 + (word >>> 0) % 3000)
      insert.run([id, `item-${id}`, body.length, body])
    }
    database.run("COMMIT")
  }
  insert.free()
  database.run("INSERT INTO work VALUES (0, ?)", [id])
}

const get = (database: Database, key: unknown) => {
  if (key !== undefined && typeof key !== "string") throw new TypeError("get: the key is a text, such as \"item-1\"")
  const row = one(
    database,
    `SELECT key, id, size, body FROM items WHERE key = ${key === undefined ? anyKey : "?"}`,
    key === undefined ? undefined : [key]
  )
  if (row === undefined) return { found: false }
  const [name, id, size, body] = row
  return { found: true, key: name, id, size, sha256: createHash("sha256").update(body as Uint8Array).digest("hex") }
}

const hash = (database: Database) => {
  const digest = createHash("sha256")
  const select = database.prepare("SELECT key, id, size, body FROM items ORDER BY key")
  let rows = 0
  try {
    while (select.step()) {
      const [key, id, size, body] = select.get() as [string, number, number, Uint8Array]
      digest.update(`${key}\0${id}\0${size}\0`).update(body)
      rows++
    }
  } finally {
    select.free()
  }
  return { hash: digest.digest("hex"), rows }
}

const stats = (ctx: Context) => {
  const { database } = ctx.state
  const [ticks, items] = one(database, "SELECT ticks, items FROM work") ?? []
  const { bytes, pages } = pagesOf(database)
  return {
    ramBytes: ctx.memory[Guest.wasmBlock].length,
    databaseBytes: bytes,
    databasePages: pages,
    items,
    ticks
  }
}

const pagesOf = (database: Database) => {
  const pages = Number(one(database, "PRAGMA page_count")?.[0])
  return { pages, bytes: pages * Number(one(database, "PRAGMA page_size")?.[0]) }
}

/** The first row. No statement is kept: none would be known at the destination. */
const one = (database: Database, sql: string, params?: BindParams): ReadonlyArray<SqlValue> | undefined => {
  const statement = database.prepare(sql, params)
  try {
    return statement.step() ? statement.get() : undefined
  } finally {
    statement.free()
  }
}

/** Runs every statement of `sql`; `params` go to each, the answer is the last one's. Blobs become `{base64}`. */
const query = (database: Database, sql: string, params?: unknown) => {
  let answer: { columns: ReadonlyArray<string>; rows: ReadonlyArray<ReadonlyArray<unknown>> } = {
    columns: [],
    rows: []
  }
  for (const statement of database.iterateStatements(sql)) {
    if (params !== undefined && params !== null) statement.bind(params as BindParams)
    const rows: Array<ReadonlyArray<unknown>> = []
    while (statement.step()) rows.push(statement.get().map(asJson))
    answer = { columns: statement.getColumnNames(), rows }
  }
  return answer
}

const asJson = (value: SqlValue) =>
  value instanceof Uint8Array
    ? { base64: Buffer.from(value.buffer, value.byteOffset, value.length).toString("base64") }
    : value
