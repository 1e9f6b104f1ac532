/**
 * The device state of a WebAssembly guest: the values of its exported mutable numeric globals, then the bytes that the
 * guest's own `save` gave. A guest of plain memory has no such envelope; its device state is what `save` gave.
 *
 * ```
 * "pcw1"  be32 length of the header  header: JSON {"globals":[[name, kind, value]…]}  bytes of `save`
 * ```
 * A value is written as 16 hex digits: the bits of a float64 (kind "f", for i32, f32 and f64, each of which a float64
 * holds exactly), or of an int64 (kind "i").
 */
import { engine, type WasmExports, type WasmGlobal } from "./WasmTypes.ts"

const magic = 0x70637731
const prefixBytes = 8

type Entry = readonly [name: string, kind: "f" | "i", bits: string]

/** Captures. `bytes` is what `save` gave. */
export const encode = (exports: WasmExports, bytes: Uint8Array): Uint8Array => {
  const globals = [...mutableGlobals(exports)].map(([name, global]): Entry => [
    name,
    typeof global.value === "bigint" ? "i" : "f",
    toBits(global.value as number | bigint)
  ])
  const header = new TextEncoder().encode(JSON.stringify({ globals }))
  const out = new Uint8Array(prefixBytes + header.length + bytes.length)
  const words = new DataView(out.buffer)
  words.setUint32(0, magic)
  words.setUint32(4, header.length)
  out.set(header, prefixBytes)
  out.set(bytes, prefixBytes + header.length)
  return out
}

/**
 * Sets the globals and returns the guest's own bytes.
 *
 * @throws Error when the bytes are not an envelope or the instance has no such globals
 */
export const apply = (exports: WasmExports, state: Uint8Array): Uint8Array => {
  const { bytes, globals } = decode(state)
  const here = new Map(mutableGlobals(exports))
  for (const [name, kind, bits] of globals) {
    const global = here.get(name)
    if (global === undefined || (typeof global.value === "bigint") !== (kind === "i")) {
      throw new Error(
        `the instance has no mutable global ${JSON.stringify(name)} like the source's: not the same module`
      )
    }
    global.value = fromBits(kind, bits)
    here.delete(name)
  }
  if (here.size > 0) {
    throw new Error(`the source sent no global ${JSON.stringify([...here.keys()][0])}: not the same module`)
  }
  return bytes
}

const decode = (state: Uint8Array): { readonly globals: ReadonlyArray<Entry>; readonly bytes: Uint8Array } => {
  const words = new DataView(state.buffer, state.byteOffset, state.byteLength)
  if (state.length < prefixBytes || words.getUint32(0) !== magic) {
    throw new Error("the device state is not that of a WebAssembly guest")
  }
  const end = prefixBytes + words.getUint32(4)
  if (end > state.length) throw new Error(`the device state ends within its header (${state.length} of ${end} bytes)`)
  const header: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(state.subarray(prefixBytes, end)))
  const globals: unknown = Object(header).globals
  if (!Array.isArray(globals) || !globals.every(isEntry)) throw new Error("the header of the device state is malformed")
  return { globals, bytes: state.subarray(end) }
}

const isEntry = (value: unknown): value is Entry =>
  Array.isArray(value) && value.length === 3 && typeof value[0] === "string" &&
  (value[1] === "f" || value[1] === "i") &&
  typeof value[2] === "string" && /^[0-9a-f]{16}$/.test(value[2])

/** Exported globals that can be set and hold a number. */
function* mutableGlobals(exports: WasmExports): Iterable<[string, WasmGlobal]> {
  for (const [name, value] of Object.entries(exports)) {
    if (!(value instanceof engine.Global)) continue
    try {
      // The engine tells neither type nor mutability; setting a global to what it is tells both and changes nothing.
      const held = value.value
      if (typeof held !== "number" && typeof held !== "bigint") continue
      value.value = held
    } catch {
      continue
    }
    yield [name, value]
  }
}

const scratch = new DataView(new ArrayBuffer(8))

const toBits = (value: number | bigint): string => {
  if (typeof value === "bigint") scratch.setBigInt64(0, value)
  else scratch.setFloat64(0, value)
  return scratch.getBigUint64(0).toString(16).padStart(16, "0")
}

const fromBits = (kind: "f" | "i", bits: string): number | bigint => {
  scratch.setBigUint64(0, BigInt(`0x${bits}`))
  return kind === "i" ? scratch.getBigInt64(0) : scratch.getFloat64(0)
}
