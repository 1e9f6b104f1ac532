/**
 * The main thread's end of a vCPU thread: posts commands, matches replies, and turns the thread's death in any form
 * into one `GuestError` that every waiting and every later command fails with. Plain callbacks; `Vcpu` makes Effects of it.
 */
import { Worker } from "node:worker_threads"
import * as ExitGuard from "./ExitGuard.ts"
import { GuestError } from "./GuestError.ts"
import { describe } from "./GuestFailure.ts"
import { extension } from "./GuestUrl.ts"
import type { Failure, FromThread, LoadedBlock, ToThread, VcpuData } from "./VcpuMessages.ts"

/** A command without its number. */
export type Command = ToThread extends infer M ? M extends { readonly id: number } ? Omit<M, "id"> : never : never

export interface Handlers {
  readonly onLoaded: (kind: "memory" | "wasm", blocks: ReadonlyArray<LoadedBlock>) => void
  readonly onDiscard: (idstr: string, offset: number, length: number) => void
  readonly onFirstStep: (nanos: bigint) => void
  /** Once: the guest is lost. */
  readonly onFailure: (error: GuestError) => void
  /** The thread has ended, for whatever reason. */
  readonly onExit: () => void
}

type Settle = (result: { readonly value: unknown } | { readonly error: GuestError }) => void

export class VcpuPort {
  readonly #worker: Worker
  readonly #handlers: Handlers
  readonly #attention: Int32Array
  readonly #pending = new Map<number, Settle>()
  #nextId = 1
  #failure: GuestError | undefined
  #ending = false

  constructor(data: Omit<VcpuData, "attention">, handlers: Handlers) {
    const attention = new SharedArrayBuffer(4)
    this.#attention = new Int32Array(attention)
    this.#handlers = handlers
    const entry = new URL(`./VcpuThread${extension}`, import.meta.url)
    const left = ExitGuard.enter()
    try {
      this.#worker = new Worker(entry, { workerData: { ...data, attention }, name: "vcpu", ...inherited() })
    } catch (error) {
      left()
      throw error
    }
    this.#worker.on("message", (message: FromThread) => this.#receive(message))
    this.#worker.on("error", (error) => this.#fail({ phase: "thread", ...sentence(error) }))
    this.#worker.on("messageerror", (error) => this.#fail({ phase: "thread", message: describe(error) }))
    this.#worker.on("exit", (code) => {
      left()
      this.#fail({
        phase: "thread",
        message: this.#ending ? "the guest was stopped" : `the guest ended its thread (exit code ${code})`
      })
      handlers.onExit()
    })
  }

  /** Posts a command; `settle` is called once, unless the returned function was called before. */
  request(command: Command, settle: Settle): () => void {
    if (this.#failure !== undefined) {
      settle({ error: this.#failure })
      return () => {}
    }
    const id = this.#nextId++
    this.#pending.set(id, settle)
    this.#post({ ...command, id } as ToThread)
    return () => {
      if (this.#pending.delete(id) && command._tag === "call") this.#post({ _tag: "abandon", id })
    }
  }

  /** Asks the thread to end after its slice. */
  stop(): void {
    this.#ending = true
    this.#post({ _tag: "stop" })
  }

  /** Ends the thread within its slice, unless it waits in a page fault. */
  terminate(): void {
    this.#worker.terminate().catch(() => {})
  }

  /** No longer holds the process open. */
  unref(): void {
    this.#worker.unref()
  }

  #post(message: ToThread) {
    this.#worker.postMessage(message)
    // After the message, so that the thread never stops its slices for one that is not there.
    Atomics.add(this.#attention, 0, 1)
  }

  #receive(message: FromThread) {
    switch (message._tag) {
      case "loaded":
        return this.#handlers.onLoaded(message.kind, message.blocks)
      case "reply":
        return this.#take(message.id)?.({ value: message.value })
      case "refused":
        return this.#take(message.id)?.({ error: new GuestError(message.failure) })
      case "discard":
        return this.#handlers.onDiscard(message.idstr, message.offset, message.length)
      case "firstStep":
        return this.#handlers.onFirstStep(message.nanos)
      case "crashed":
        return this.#fail(message.failure)
    }
  }

  #take(id: number) {
    const settle = this.#pending.get(id)
    this.#pending.delete(id)
    return settle
  }

  #fail(failure: Failure) {
    if (this.#failure !== undefined) return
    const error = new GuestError(failure)
    this.#failure = error
    const waiting = [...this.#pending.values()]
    this.#pending.clear()
    if (!this.#ending) this.#handlers.onFailure(error)
    for (const settle of waiting) settle({ error })
  }
}

/** `node --input-type=module -e …` hands its options on to threads, whose entry is a file and refuses that one. */
const inherited = () => process.execArgv.some((option) => option.startsWith("--input-type")) ? { execArgv: [] } : {}

const sentence = (error: unknown) => ({
  message: `the guest's thread died: ${describe(error)}`,
  ...(error instanceof Error && error.stack !== undefined ? { trace: error.stack } : {})
})
