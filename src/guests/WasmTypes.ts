/**
 * The few WebAssembly shapes a guest needs, declared structurally. TypeScript knows `WebAssembly` only through its DOM
 * library; a Node project that goes without it can still write and check a guest, and one that has it passes its own
 * types here.
 */

/** A `WebAssembly.Memory`. */
export interface WasmMemory {
  readonly buffer: ArrayBufferLike
  /** Grows by pages of {@link pageBytes}. */
  grow(delta: number): number
}

/** A `WebAssembly.Global`. */
export interface WasmGlobal {
  value: unknown
}

/** A compiled `WebAssembly.Module`; opaque. */
export type WasmModule = object

/** What a module imports, by module name and name. */
export type WasmImports = Record<string, Record<string, unknown>>

/** What a module exports, by name. */
export type WasmExports = Record<string, unknown>

/** Bytes of a WebAssembly page. */
export const pageBytes = 65536

/** The most a 32-bit linear memory can have, bytes. */
export const maximumBytes = 65536 * pageBytes

interface Namespace {
  readonly Memory: new(descriptor: { readonly initial: number; readonly maximum?: number }) => WasmMemory
  readonly Global: new(
    descriptor: { readonly value: string; readonly mutable?: boolean },
    value?: unknown
  ) => WasmGlobal
  readonly Module: new(bytes: ArrayBufferView | ArrayBuffer) => WasmModule
  readonly compile: (bytes: ArrayBufferView | ArrayBuffer) => Promise<WasmModule>
  readonly instantiate: (module: WasmModule, imports?: WasmImports) => Promise<{ readonly exports: WasmExports }>
}

/** The engine's own namespace. */
export const engine = (globalThis as unknown as { readonly WebAssembly: Namespace }).WebAssembly
