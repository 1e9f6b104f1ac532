// The one WebAssembly shape of the tests; TypeScript knows WebAssembly only through its DOM library.

export interface WasmMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

interface Engine {
  readonly Memory: new(limits: { readonly initial: number; readonly maximum: number }) => WasmMemory
}

/** A memory of `initial` pages of 64 KiB. */
export const wasmMemory = (initial: number, maximum: number): WasmMemory =>
  new (globalThis as unknown as { readonly WebAssembly: Engine }).WebAssembly.Memory({ initial, maximum })
