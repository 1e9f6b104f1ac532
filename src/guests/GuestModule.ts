/**
 * Finding, loading and instantiating a guest module, in the vCPU thread. What comes out is a {@link LoadedGuest}: the
 * definition's functions bound to one context, the blocks, and how device state is wrapped. The loop that runs it need
 * not know which kind of guest it is.
 */
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import type * as Binding from "../native/Binding.ts"
import * as DeviceState from "./DeviceState.ts"
import * as Guest from "./Guest.ts"
import * as GuestBlocks from "./GuestBlocks.ts"
import * as GuestFailure from "./GuestFailure.ts"
import type { LoadedBlock } from "./VcpuMessages.ts"
import { engine, pageBytes, type WasmExports, type WasmMemory } from "./WasmTypes.ts"

export interface LoadedGuest {
  readonly kind: "memory" | "wasm"
  readonly blocks: GuestBlocks.GuestBlocks
  /** A fresh guest's preparation. */
  readonly start: () => unknown
  /** One slice; `undefined`: the guest only answers calls. */
  readonly step: (() => unknown) | undefined
  readonly call: ((request: unknown) => unknown) | undefined
  /** The device state as it travels. */
  readonly save: () => Promise<Uint8Array>
  readonly restore: (state: Uint8Array) => unknown
  /** Grows a block to exactly `bytes`. */
  readonly grow: (idstr: string, bytes: number) => Promise<LoadedBlock>
}

export interface Options {
  readonly addon: Binding.Addon | undefined
  readonly memoryMiB: number | undefined
  readonly onDiscard: (idstr: string, offset: number, length: number) => void
}

/** @throws GuestFailure with phase `load` or `blocks` */
export const load = async (module: string, options: Options): Promise<LoadedGuest> => {
  const definition = await importDefinition(module)
  return definition._tag === "postcopy/Guest.memory" ? loadMemory(definition, options) : loadWasm(definition, options)
}

const importDefinition = async (module: string): Promise<Guest.Definition> => {
  const name = module.startsWith("file:") ? fileURLToPath(module) : module
  let namespace: { readonly default?: unknown }
  try {
    namespace = await import(module) as typeof namespace
  } catch (error) {
    // The loader's own sentence names the file of this package that asked; only the missing module matters.
    const missing = Object(error).code === "ERR_MODULE_NOT_FOUND" && Object(error).url === module
    throw missing
      ? new GuestFailure.GuestFailure("load", `cannot load the guest module ${name}: there is no such file`)
      : GuestFailure.from("load", `cannot load the guest module ${name}`, error)
  }
  if (!Guest.isDefinition(namespace.default)) {
    throw new GuestFailure.GuestFailure(
      "load",
      `the guest module ${name} does not export a guest: its default export must be made by Guest.memory or Guest.wasm`
    )
  }
  return namespace.default
}

const loadMemory = (definition: Guest.MemoryGuest, options: Options): LoadedGuest => {
  const guestOptions = { memoryMiB: options.memoryMiB }
  let blocks: GuestBlocks.GuestBlocks
  try {
    const list = typeof definition.blocks === "function" ? definition.blocks(guestOptions) : definition.blocks
    blocks = GuestBlocks.plain(Guest.checkBlocks(list), options.addon)
  } catch (error) {
    throw GuestFailure.from("blocks", "the guest's blocks cannot be made", error)
  }
  const context = makeContext<string>(blocks, guestOptions, options.onDiscard)
  return {
    kind: "memory",
    blocks,
    ...bind(definition, context),
    save: async () => savedBytes(await definition.save?.(context)),
    restore: (state) => definition.restore?.(context, state),
    grow: async (idstr) => {
      throw new GuestFailure.GuestFailure("grow", `the block ${JSON.stringify(idstr)} cannot grow: it is plain memory`)
    }
  }
}

const loadWasm = async (definition: Guest.WasmGuest, options: Options): Promise<LoadedGuest> => {
  const guestOptions = { memoryMiB: options.memoryMiB }
  // `state` is one value from `instantiate` on, so the context that it sees becomes part of the later one.
  const early: Pick<Guest.WasmContext, "options" | "state"> = { options: guestOptions, state: {} }
  let instance: Guest.WasmInstance
  try {
    instance = await instantiate(definition, early)
  } catch (error) {
    throw GuestFailure.from("load", "the guest's WebAssembly module cannot be instantiated", error)
  }
  const { exports, memory } = instance
  let blocks: GuestBlocks.GuestBlocks
  try {
    blocks = GuestBlocks.wasm(memory, definition.maximum, options.addon)
  } catch (error) {
    throw GuestFailure.from("blocks", "the guest's WebAssembly memory cannot be used", error)
  }
  const plain = makeContext<typeof Guest.wasmBlock>(blocks, guestOptions, options.onDiscard)
  const context: Guest.WasmContext = Object.assign(plain, { exports, state: early.state })
  const globals = exports as WasmExports
  return {
    kind: "wasm",
    blocks,
    ...bind(definition, context),
    save: async () => DeviceState.encode(globals, savedBytes(await definition.save?.(context))),
    restore: (state) => {
      const bytes = DeviceState.apply(globals, state)
      return definition.restore?.(context, bytes)
    },
    grow: async (idstr, bytes) => {
      const block = blocks.list()[0]!
      checkGrowth(block, idstr, bytes)
      if (bytes > block.length) {
        await (definition.grow === undefined ? growMemory(memory, bytes) : definition.grow(context, bytes))
      }
      const grown = blocks.list()[0]!
      if (grown.length !== bytes) {
        throw new GuestFailure.GuestFailure("grow", `the memory has ${grown.length} bytes after growing, not ${bytes}`)
      }
      return grown
    }
  }
}

const bind = <Ctx>(definition: Guest.Functions<Ctx>, context: Ctx) => {
  const { call, step } = definition
  return {
    start: () => definition.start?.(context),
    step: step === undefined ? undefined : () => step(context),
    call: call === undefined ? undefined : (request: unknown) => call(context, request)
  }
}

const makeContext = <Id extends string>(
  blocks: GuestBlocks.GuestBlocks,
  options: Guest.GuestOptions,
  onDiscard: Options["onDiscard"]
): Guest.Context<Id> => {
  const memory: Record<string, Uint8Array> = Object.create(null)
  for (const idstr of blocks.idstrs) {
    Object.defineProperty(memory, idstr, { enumerable: true, get: () => blocks.view(idstr) })
  }
  return {
    memory: memory as Guest.Context<Id>["memory"],
    state: {},
    options,
    discard: (idstr, offset, length) => {
      GuestBlocks.checkRange(blocks, idstr, offset, length)
      if (length === 0) return
      blocks.release(idstr, offset, length)
      // Only now: the notice says that the pages are gone.
      onDiscard(idstr, offset, length)
    }
  }
}

const instantiate = async (
  definition: Guest.WasmGuest,
  context: Pick<Guest.WasmContext, "options" | "state">
): Promise<Guest.WasmInstance> => {
  if (definition.instantiate !== undefined) {
    const instance: unknown = await definition.instantiate(context)
    const { exports, memory } = Object(instance) as Partial<Guest.WasmInstance>
    if (!(memory instanceof engine.Memory)) {
      throw new TypeError("`instantiate` did not return { memory: WebAssembly.Memory, exports }")
    }
    return { memory, exports: exports ?? {} }
  }
  const source = definition.module
  const module = source instanceof engine.Module
    ? source
    : await engine.compile(source instanceof URL ? await readFile(source) : source as Uint8Array)
  const imports = typeof definition.imports === "function" ? definition.imports(context) : definition.imports
  const { exports } = await engine.instantiate(module, imports ?? {})
  const memories = [exports, ...Object.values(imports ?? {})].flatMap((names) =>
    Object.values(names).filter((value): value is WasmMemory => value instanceof engine.Memory)
  )
  const unique = [...new Set(memories)]
  if (unique.length !== 1) {
    throw new TypeError(
      `the module has ${unique.length} memories among its exports and imports; a guest has exactly one`
    )
  }
  return { memory: unique[0]!, exports }
}

const savedBytes = (saved: unknown): Uint8Array => {
  if (saved === undefined) return new Uint8Array(0)
  if (!(saved instanceof Uint8Array)) throw new TypeError("`save` did not return a Uint8Array")
  // A copy of its own: `saved` may be a view of guest memory, which lives on.
  return new Uint8Array(saved)
}

const checkGrowth = (block: LoadedBlock, idstr: string, bytes: number) => {
  if (idstr !== block.idstr) {
    throw new GuestFailure.GuestFailure("grow", `there is no block ${JSON.stringify(idstr)}`)
  }
  const fits = Number.isSafeInteger(bytes) && bytes >= block.length && bytes <= block.maximum && bytes % pageBytes === 0
  if (!fits) {
    throw new GuestFailure.GuestFailure(
      "grow",
      `${idstr} has ${block.length} bytes and cannot become ${bytes}: not a multiple of 64 KiB up to ${block.maximum}`
    )
  }
}

const growMemory = (memory: WasmMemory, bytes: number) => {
  memory.grow((bytes - memory.buffer.byteLength) / pageBytes)
}
