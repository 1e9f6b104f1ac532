/**
 * The built-in SQLite guest of the demo, with one call more: `{"op":"touch"}` reads a byte of every page, also of those
 * that belong to no row, so that a destination asks for whatever is still missing.
 */
import sqlite from "../guests/builtin/sqlite.ts"
import * as Guest from "../guests/Guest.ts"

export default {
  ...sqlite,
  call: (ctx: Guest.WasmContext, request: unknown) =>
    Object(request).op === "touch" ? touch(ctx.memory[Guest.wasmBlock]) : sqlite.call?.(ctx, request)
}

const touch = (memory: Uint8Array) => {
  let sum = 0
  for (let at = 0; at < memory.length; at += Guest.pageSize) sum += memory[at]!
  return { pages: memory.length / Guest.pageSize, sum }
}
