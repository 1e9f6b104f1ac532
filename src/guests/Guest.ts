/**
 * What a guest module exports: a definition made by {@link memory} or {@link wasm}. The same module is loaded on both
 * sides of a migration, each time in a vCPU thread of its own, so a definition holds functions and is never passed
 * between threads. This file depends on nothing heavy: a guest's thread loads it and little else.
 *
 * A guest works only inside the functions given here. It is stopped between two slices with no call under way; timers
 * that it leaves behind would go on at the source after it has moved.
 */
import {
  maximumBytes,
  pageBytes,
  type WasmExports,
  type WasmImports,
  type WasmMemory,
  type WasmModule
} from "./WasmTypes.ts"

/** Bytes of a page of guest memory; block lengths are multiples of it. */
export const pageSize = 4096

/** The RAM block a {@link wasm} guest's linear memory is. */
export const wasmBlock = "wasm.memory"

/** What the process that hosts the guest was told about it. */
export interface GuestOptions {
  /** `--memory`, MiB; a guest may size its blocks by it. */
  readonly memoryMiB?: number | undefined
}

/** A RAM block of a guest: how it is called on the wire and its bytes. */
export interface Block<Id extends string = string> {
  /** 1…255 bytes of UTF-8, unique within the guest. */
  readonly idstr: Id
  /** Bytes, a positive multiple of {@link pageSize} and of `hugePageSize`. */
  readonly length: number
  /**
   * What the memory is made of: `anonymous` (default), into which a destination copies pages, or a `memfd`, which it fills
   * through a view of its own and maps page by page. The wire does not tell: the two sides may differ.
   */
  readonly backing?: "anonymous" | "memfd" | undefined
  /**
   * Bytes of the huge pages that a memfd takes from the host's pool, for example 2 MiB; default: ordinary pages. At a
   * destination a huge page is there only as a whole, and `discard` gives whole ones back.
   */
  readonly hugePageSize?: number | undefined
}

/** What every function of a guest is given: the same object during the guest's stay in one process. */
export interface Context<Id extends string = string, State = any> {
  /** The blocks by name. Ask anew in each slice: a WebAssembly memory that has grown has a new view. */
  readonly memory: { readonly [idstr in Id]: Uint8Array }
  /** The guest's own value, `{}` at first. It moves only as far as `save` writes it down. */
  state: State
  readonly options: GuestOptions
  /**
   * Gives pages back to the host: they read zero from now on, and a migration need not move them.
   * `offset` and `length` are bytes, multiples of the block's page size, within the block; else a `RangeError`.
   */
  readonly discard: (idstr: Id, offset: number, length: number) => void
}

/** The {@link Context} of a WebAssembly guest. */
export interface WasmContext<State = any, Exports = WasmExports> extends Context<typeof wasmBlock, State> {
  /** The `exports` that `instantiate` returned. */
  readonly exports: Exports
}

/** The functions that both kinds of guests have. Each may return a promise, which is waited for. */
export interface Functions<Ctx> {
  /** Prepares a fresh guest. Not called on one that arrives by migration. */
  readonly start?: ((ctx: Ctx) => unknown) | undefined
  /**
   * One slice of work, called again and again while the guest runs. Short slices make short pauses. A guest that has
   * nothing to do for a while returns `{ restMillis }`: calls are answered and a pause is reached meanwhile.
   */
  readonly step?: ((ctx: Ctx) => unknown) | undefined
  /** Answers a request from outside. Request and answer are JSON values. What it throws is the caller's error only. */
  readonly call?: ((ctx: Ctx, request: any) => unknown) | undefined
  /** The device state: what must move with the guest and is not in its blocks. Called while paused. */
  readonly save?: ((ctx: Ctx) => Uint8Array | Promise<Uint8Array>) | undefined
  /** Takes the device state over at the destination, where memory may still be missing: touch little of it here. */
  readonly restore?: ((ctx: Ctx, bytes: Uint8Array) => unknown) | undefined
}

export interface MemoryOptions<Id extends string = string, State = any> extends Functions<Context<Id, State>> {
  readonly blocks: ReadonlyArray<Block<Id>> | ((options: GuestOptions) => ReadonlyArray<Block<Id>>)
}

/** What `instantiate` of a WebAssembly guest gives. */
export interface WasmInstance<Exports = WasmExports> {
  readonly memory: WasmMemory
  readonly exports: Exports
}

export interface WasmOptions<State = any, Exports = WasmExports> extends Functions<WasmContext<State, Exports>> {
  /** Builds the instance, in the same way on both sides: what it leaves in JavaScript must not differ. */
  readonly instantiate?:
    | ((ctx: Pick<WasmContext<State>, "options" | "state">) => WasmInstance<Exports> | Promise<WasmInstance<Exports>>)
    | undefined
  /** Instead of `instantiate`: a module, its bytes, or the URL of its file. */
  readonly module?: WasmModule | Uint8Array | ArrayBuffer | URL | undefined
  /** With `module`: what it imports. */
  readonly imports?: WasmImports | ((ctx: Pick<WasmContext<State>, "options" | "state">) => WasmImports) | undefined
  /**
   * Grows the linear memory to exactly `bytes`; for modules whose JavaScript glue must know. Default: `memory.grow`.
   */
  readonly grow?: ((ctx: WasmContext<State, Exports>, bytes: number) => unknown) | undefined
  /** The most bytes the memory may grow to, as the module declares it. Default 4 GiB. */
  readonly maximum?: number | undefined
}

/** A guest of plain memory blocks. */
export interface MemoryGuest extends MemoryOptions {
  readonly _tag: "postcopy/Guest.memory"
}

/** A guest that is a WebAssembly instance. */
export interface WasmGuest extends WasmOptions<any, any> {
  readonly _tag: "postcopy/Guest.wasm"
}

/** What the default export of a guest module is. */
export type Definition = MemoryGuest | WasmGuest

/**
 * A guest of plain memory blocks.
 *
 * @throws TypeError, RangeError when the definition could never work
 */
export const memory = <const Id extends string, State = any>(options: MemoryOptions<Id, State>): MemoryGuest => {
  checkFunctions("Guest.memory", options, functionNames)
  if (typeof options.blocks !== "function") checkBlocks(options.blocks)
  return { ...options as unknown as MemoryOptions, _tag: "postcopy/Guest.memory" }
}

/**
 * A guest that is a WebAssembly instance; its linear memory is the RAM block {@link wasmBlock}. Exported mutable
 * numeric globals travel with the device state; what else lives outside the linear memory is for `save` and `restore`.
 *
 * @throws TypeError, RangeError when the definition could never work
 */
export const wasm = <State = any, Exports = WasmExports>(options: WasmOptions<State, Exports>): WasmGuest => {
  checkFunctions("Guest.wasm", options, [...functionNames, "instantiate", "grow"])
  if ((options.instantiate === undefined) === (options.module === undefined)) {
    throw new TypeError("Guest.wasm needs either `instantiate` or `module`")
  }
  if (options.imports !== undefined && options.module === undefined) {
    throw new TypeError("Guest.wasm: `imports` goes with `module`")
  }
  const maximum = options.maximum ?? maximumBytes
  if (!Number.isInteger(maximum) || maximum <= 0 || maximum % pageBytes !== 0 || maximum > maximumBytes) {
    throw new RangeError(`Guest.wasm: \`maximum\` is ${maximum}, not a multiple of 64 KiB up to 4 GiB`)
  }
  return { ...options, _tag: "postcopy/Guest.wasm" }
}

/** Whether a value is a guest's definition, also one made by another copy of this package. */
export const isDefinition = (value: unknown): value is Definition =>
  typeof value === "object" && value !== null && "_tag" in value &&
  (value._tag === "postcopy/Guest.memory" || value._tag === "postcopy/Guest.wasm")

/**
 * Refuses blocks that could not travel: the wire gives a name one length byte, and memory moves by pages.
 *
 * @throws TypeError, RangeError
 */
export const checkBlocks = (blocks: unknown): ReadonlyArray<Block> => {
  if (!Array.isArray(blocks)) throw new TypeError("`blocks` is not an array of { idstr, length }")
  if (blocks.length === 0) throw new RangeError("`blocks` is empty: a guest has at least one RAM block")
  const seen = new Set<string>()
  for (const block of blocks as ReadonlyArray<unknown>) {
    const { idstr, length } = Object(block) as Partial<Record<keyof Block, unknown>>
    if (typeof idstr !== "string" || typeof length !== "number") {
      throw new TypeError(`\`blocks\`: ${JSON.stringify(block)} is not { idstr: string, length: number }`)
    }
    const bytes = new TextEncoder().encode(idstr).length
    if (bytes < 1 || bytes > 255 || !idstr.isWellFormed()) {
      throw new RangeError(
        `\`blocks\`: the idstr ${JSON.stringify(idstr)} is not 1 to 255 bytes of UTF-8 (has ${bytes})`
      )
    }
    if (seen.has(idstr)) throw new RangeError(`\`blocks\`: two blocks are called ${JSON.stringify(idstr)}`)
    seen.add(idstr)
    if (!Number.isSafeInteger(length) || length <= 0 || length % pageSize !== 0) {
      throw new RangeError(
        `\`blocks\`: the length of ${idstr} is ${length}, not a positive multiple of ${pageSize} bytes`
      )
    }
    checkBacking(block as Block)
  }
  return blocks as ReadonlyArray<Block>
}

const checkBacking = ({ backing, hugePageSize, idstr, length }: Block) => {
  if (backing !== undefined && backing !== "anonymous" && backing !== "memfd") {
    throw new TypeError(`\`blocks\`: the backing of ${idstr} is ${JSON.stringify(backing)}, not "anonymous" or "memfd"`)
  }
  if (hugePageSize === undefined) return
  if (backing !== "memfd") {
    throw new TypeError(`\`blocks\`: ${idstr} has a \`hugePageSize\`, which goes with backing "memfd"`)
  }
  const power = Number.isSafeInteger(hugePageSize) && hugePageSize > pageSize && Math.log2(hugePageSize) % 1 === 0
  if (!power || length % hugePageSize !== 0) {
    throw new RangeError(
      `\`blocks\`: ${idstr} of ${length} bytes is not made of whole huge pages of ${hugePageSize} bytes`
    )
  }
}

const functionNames = ["start", "step", "call", "save", "restore"] as const

const checkFunctions = (maker: string, options: object, names: ReadonlyArray<string>) => {
  if (typeof options !== "object" || options === null) throw new TypeError(`${maker} takes an object of functions`)
  for (const name of names) {
    const value = (options as Record<string, unknown>)[name]
    if (value !== undefined && typeof value !== "function") {
      throw new TypeError(`${maker}: \`${name}\` is ${value === null ? "null" : typeof value}, not a function`)
    }
  }
}
