/**
 * The RAM blocks of a guest, owned by its vCPU thread: plain blocks mapped by the addon, or the linear memory of a
 * WebAssembly instance. Both tell the main thread a token only. Where the addon is missing plain blocks are shared
 * buffers, and a WebAssembly memory is copied out through one.
 */
import type * as Binding from "../native/Binding.ts"
import type { Block } from "./Guest.ts"
import { pageSize, wasmBlock } from "./Guest.ts"
import { GuestFailure } from "./GuestFailure.ts"
import type { LoadedBlock } from "./VcpuMessages.ts"
import { maximumBytes, pageBytes, type WasmMemory } from "./WasmTypes.ts"

type Addon = Binding.Addon
type Region = Addon["Region"]["prototype"]

export interface GuestBlocks {
  readonly idstrs: ReadonlyArray<string>
  /** As they are now: a WebAssembly memory may have grown since it was last asked for. */
  readonly list: () => ReadonlyArray<LoadedBlock>
  readonly view: (idstr: string) => Uint8Array
  /** Gives whole pages back; they read zero afterwards. Arguments are checked already. */
  readonly release: (idstr: string, offset: number, length: number) => void
  /** Makes what `list` tells readable by the main thread: copies a memory that has no region. */
  readonly stageOut: () => void
  /** The other way round: takes over what the main thread has written. */
  readonly stageIn: () => void
}

/** Maps plain blocks. @throws what the kernel says when memory is short */
export const plain = (blocks: ReadonlyArray<Block>, addon: Addon | undefined): GuestBlocks => {
  const entries = new Map<
    string,
    { readonly block: LoadedBlock; readonly view: Uint8Array; readonly region?: Region }
  >()
  for (const { backing = "anonymous", hugePageSize, idstr, length } of blocks) {
    const sizes = { idstr, length, maximum: length, hostPageSize: hugePageSize ?? addon?.pageSize ?? pageSize }
    if (addon === undefined) {
      const buffer = new SharedArrayBuffer(length)
      entries.set(idstr, { block: { ...sizes, memory: { _tag: "Shared", buffer } }, view: new Uint8Array(buffer) })
      continue
    }
    const region = map(addon, `postcopy-${entries.size}`, { backing, hugePageSize, idstr, length })
    // A child process needs none of it, and copying its page tables would stop the guest for the time of a fork.
    region.madvise(0, length, addon.constants.MADV_DONTFORK)
    const block: LoadedBlock = { ...sizes, memory: { _tag: "Region", token: region.share(), backing } }
    entries.set(idstr, { block, view: new Uint8Array(region.buffer()), region })
  }
  const entry = (idstr: string) => {
    const found = entries.get(idstr)
    if (found === undefined) throw new RangeError(`there is no block ${JSON.stringify(idstr)}`)
    return found
  }
  return {
    idstrs: [...entries.keys()],
    list: () => [...entries.values()].map(({ block }) => block),
    view: (idstr) => entry(idstr).view,
    release: (idstr, offset, length) => {
      const { block, region, view } = entry(idstr)
      const shared = block.memory._tag === "Region" && block.memory.backing === "memfd"
      dropPages(addon, region, view, offset, length, shared ? "MADV_REMOVE" : "MADV_DONTNEED")
    },
    stageOut: () => {},
    stageIn: () => {}
  }
}

const map = (addon: Addon, name: string, { backing, hugePageSize, idstr, length }: Block): Region => {
  if (backing !== "memfd") return addon.Region.anonymous(length)
  if (hugePageSize === undefined) return addon.Region.memfd(name, length)
  try {
    return addon.Region.memfd(name, length, { hugetlb: hugePageSize })
  } catch (error) {
    const code = Object(error).code as unknown
    const [pages, kib] = [length / hugePageSize, hugePageSize / 1024]
    const remedy = code === "ENOMEM"
      ? `the host has not ${pages} of them free: echo N > /sys/kernel/mm/hugepages/hugepages-${kib}kB/nr_hugepages`
      : "the host has none of this size: see /sys/kernel/mm/hugepages"
    throw new Error(`${pages} huge pages of ${kib} KiB for block ${idstr}: ${remedy} (${String(code)})`, {
      cause: error
    })
  }
}

/** Wraps a linear memory. Its region is made anew whenever the memory has grown, because growth detaches the buffer. */
export const wasm = (memory: WasmMemory, maximum: number | undefined, addon: Addon | undefined): GuestBlocks => {
  let buffer: ArrayBufferLike | undefined
  let view: Uint8Array
  let region: Region | undefined
  let block: LoadedBlock
  const current = () => {
    if (buffer === memory.buffer) return
    buffer = memory.buffer
    if (!(buffer instanceof ArrayBuffer)) {
      throw new GuestFailure("blocks", "a shared WebAssembly memory cannot move: other threads may write to it")
    }
    const length = buffer.byteLength
    if (length === 0 || length % pageBytes !== 0) {
      throw new GuestFailure("blocks", `the WebAssembly memory has ${length} bytes, not a positive multiple of 64 KiB`)
    }
    view = new Uint8Array(buffer)
    region?.close()
    region = addon?.Region.ofBuffer(buffer)
    block = {
      idstr: wasmBlock,
      length,
      maximum: Math.max(length, maximum ?? maximumBytes),
      hostPageSize: addon?.pageSize ?? pageSize,
      memory: region === undefined
        ? { _tag: "Shared", buffer: new SharedArrayBuffer(length) }
        : { _tag: "Region", token: region.share(), backing: "anonymous" }
    }
  }
  current()
  return {
    idstrs: [wasmBlock],
    list: () => {
      current()
      return [block]
    },
    view: () => {
      current()
      return view
    },
    release: (_idstr, offset, length) => {
      current()
      dropPages(addon, region, view, offset, length, "MADV_DONTNEED")
    },
    stageOut: () => {
      current()
      if (block.memory._tag === "Shared") new Uint8Array(block.memory.buffer).set(view)
    },
    stageIn: () => {
      current()
      if (block.memory._tag === "Shared") view.set(new Uint8Array(block.memory.buffer))
    }
  }
}

const dropPages = (
  addon: Addon | undefined,
  region: Region | undefined,
  view: Uint8Array,
  offset: number,
  length: number,
  advice: "MADV_DONTNEED" | "MADV_REMOVE"
) => {
  if (addon === undefined || region === undefined) {
    view.fill(0, offset, offset + length)
    return
  }
  const result = region.madvise(offset, length, addon.constants[advice])
  if (result < 0) throw new Error(`madvise(${advice}) failed: ${addon.errnoName(-result)}`)
}

/** @throws RangeError unless whole pages within a block are meant */
export const checkRange = (blocks: GuestBlocks, idstr: string, offset: number, length: number): void => {
  if (!blocks.idstrs.includes(idstr)) throw new RangeError(`discard: there is no block ${JSON.stringify(idstr)}`)
  const { hostPageSize, length: total } = blocks.list().find((block) => block.idstr === idstr)!
  const whole = (bytes: number) => Number.isSafeInteger(bytes) && bytes >= 0 && bytes % hostPageSize === 0
  if (!whole(offset) || !whole(length) || offset + length > total) {
    throw new RangeError(
      `discard: ${length} bytes at ${offset} are not whole pages of ${hostPageSize} bytes within ${idstr} (${total} bytes)`
    )
  }
}
