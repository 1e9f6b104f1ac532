/**
 * What the vCPU thread and the main thread tell each other. Everything here is structured-cloned; requests and answers
 * of calls travel as JSON text, so that an answer that happens to be a view of guest memory does not copy (and, at a
 * destination, fault in) the whole block behind it.
 */
import type { Phase } from "./GuestError.ts"

/** A RAM block as the main thread sees it: never its contents, only what finds them. */
export interface LoadedBlock {
  readonly idstr: string
  /** Bytes. */
  readonly length: number
  /** The most bytes it may grow to; `length` unless resizable. */
  readonly maximum: number
  /** Bytes of a page of this block on this host. */
  readonly hostPageSize: number
  readonly memory: BlockMemory
}

/**
 * `Region`: a token for the addon's `Region.adopt`. `Shared`: where there is no addon. For plain blocks that is the
 * memory itself; for a WebAssembly memory a stage that `capture` fills and `restore` takes over.
 */
export type BlockMemory =
  | { readonly _tag: "Region"; readonly token: bigint; readonly backing: "anonymous" | "memfd" }
  | { readonly _tag: "Shared"; readonly buffer: SharedArrayBuffer }

/** What the thread is started with. */
export interface VcpuData {
  /** URL of the guest module. */
  readonly module: string
  readonly memoryMiB: number | undefined
  /** False: behave as where the addon is missing. */
  readonly addon: boolean
  /** One word: how many messages the main thread has posted. */
  readonly attention: SharedArrayBuffer
}

export type ToThread =
  | { readonly _tag: "start"; readonly id: number }
  | { readonly _tag: "run"; readonly id: number }
  | { readonly _tag: "pause"; readonly id: number }
  | { readonly _tag: "measure"; readonly id: number }
  | { readonly _tag: "capture"; readonly id: number }
  | { readonly _tag: "grow"; readonly id: number; readonly idstr: string; readonly bytes: number }
  | { readonly _tag: "restore"; readonly id: number; readonly state: Uint8Array | undefined }
  | { readonly _tag: "call"; readonly id: number; readonly request: string }
  /** Nobody waits for this call any more: forget it if it has not begun. */
  | { readonly _tag: "abandon"; readonly id: number }
  | { readonly _tag: "stop" }

/** What went wrong, before it becomes a `GuestError` of the main thread. */
export interface Failure {
  readonly phase: Phase
  readonly message: string
  readonly trace?: string
}

export type FromThread =
  | { readonly _tag: "loaded"; readonly kind: "memory" | "wasm"; readonly blocks: ReadonlyArray<LoadedBlock> }
  | { readonly _tag: "reply"; readonly id: number; readonly value: unknown }
  | { readonly _tag: "refused"; readonly id: number; readonly failure: Failure }
  | { readonly _tag: "discard"; readonly idstr: string; readonly offset: number; readonly length: number }
  | { readonly _tag: "firstStep"; readonly nanos: bigint }
  /** The guest is lost: its code threw outside a call. */
  | { readonly _tag: "crashed"; readonly failure: Failure }

/** The values of replies: `pause`, `measure`, `capture`, `grow`, `call` (JSON text); the others reply nothing. */
export interface Replies {
  readonly pause: { readonly lastStepNanos: bigint }
  readonly measure: ReadonlyArray<LoadedBlock>
  readonly capture: { readonly state: Uint8Array; readonly blocks: ReadonlyArray<LoadedBlock> }
  readonly grow: { readonly block: LoadedBlock; readonly blocks: ReadonlyArray<LoadedBlock> }
  readonly call: string
}
