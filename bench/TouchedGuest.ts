/**
 * The guest of the benchmarks: memory that is filled with what `BENCH_FILL` says, and touches that are timed one by one.
 * It does nothing of its own accord, so that every fault is one of a measured touch; `first` is the first thing it does
 * after it has moved. The order of the touches is that of `floor.c`.
 */
import { Worker } from "node:worker_threads"
import { monotonicNanos, Region } from "userfaultfd-napi"
import * as Guest from "../src/Guest.ts"

const idstr = "pc.ram"
const PAGE = 4096
/** A touch below this found its page. The same bound as in `floor.c`. */
const HIT_NANOS = 3000

type Context = Guest.Context<typeof idstr, { readonly ready: boolean }>

interface Request {
  /** Pages to touch. */
  readonly count: number
  readonly seed?: number
  readonly threads?: number
  /** In ascending instead of random order. */
  readonly ascending?: boolean
}

export interface Touched {
  readonly faults: number
  readonly p50Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly meanUs: number
  readonly touchMs: number
}

const shuffled = (pages: number, seed: number): Uint32Array => {
  const order = Uint32Array.from({ length: pages }, (_, i) => i)
  let x = seed >>> 0
  for (let i = pages - 1; i > 0; i--) {
    x ^= x << 13
    x ^= x >>> 17
    x = (x ^ (x << 5)) >>> 0
    const j = x % (i + 1)
    const kept = order[i]!
    order[i] = order[j]!
    order[j] = kept
  }
  return order
}

const summary = (nanos: Uint32Array, touchMs: number): Touched => {
  const faults = nanos.filter((n) => n >= HIT_NANOS).sort()
  const at = (q: number) => faults.length === 0 ? 0 : faults[Math.floor((faults.length - 1) * q)]! / 1e3
  const sum = faults.reduce((total, n) => total + n, 0)
  return {
    faults: faults.length,
    p50Us: at(0.5),
    p99Us: at(0.99),
    p999Us: at(0.999),
    meanUs: faults.length === 0 ? 0 : sum / faults.length / 1e3,
    touchMs
  }
}

const touch = (memory: Uint8Array, order: Uint32Array, count: number): Touched => {
  const nanos = new Uint32Array(count)
  let sum = 0
  const begun = monotonicNanos()
  for (let i = 0; i < count; i++) {
    const from = monotonicNanos()
    sum ^= memory[order[i]! * PAGE]!
    nanos[i] = Math.min(monotonicNanos() - from, 0xffffffff)
  }
  const took = monotonicNanos() - begun
  if (sum > 255) throw new Error("a byte has 8 bits")
  return summary(nanos, took / 1e6)
}

/** The same by several threads, which share the order out among themselves. */
const touchByThreads = async (memory: Uint8Array, order: Uint32Array, count: number, threads: number) => {
  const region = Region.ofBuffer(memory.buffer as ArrayBuffer)
  const nanos = new Uint32Array(new SharedArrayBuffer(count * 4))
  const start = new Int32Array(new SharedArrayBuffer(4))
  const data = { token: region.share(), order: order.slice(0, count), nanos, start, threads }
  const workers = Array.from(
    { length: threads },
    (_, thread) => new Worker(new URL("./ToucherThread.ts", import.meta.url), { workerData: { ...data, thread } })
  )
  const told = (worker: Worker) => new Promise<void>((resolve) => worker.once("message", () => resolve()))
  await Promise.all(workers.map(told))
  const begun = monotonicNanos()
  const done = Promise.all(workers.map(told))
  Atomics.store(start, 0, 1)
  Atomics.notify(start, 0)
  await done
  const took = monotonicNanos() - begun
  region.close()
  return summary(nanos.slice(), took / 1e6)
}

const fill = (memory: Uint8Array) => {
  const how = process.env["BENCH_FILL"] ?? "random"
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4)
  if (how === "zero") return void memory.fill(0)
  if (how === "byte") return void memory.fill(7)
  for (let i = 0, x = 1; i < words.length; i++, x = (x + 0x9e3779b1) | 0) words[i] = x
}

export default Guest.memory<typeof idstr, { readonly ready: boolean }>({
  blocks: ({ memoryMiB = 64 }) => [{ idstr, length: memoryMiB * 2 ** 20 }],
  start: (ctx: Context) => {
    ctx.state = { ready: true }
    fill(ctx.memory[idstr])
  },
  ...(process.env["BENCH_STEPS"] === "1"
    ? { step: (ctx: Context) => ({ restMillis: 1, byte: ctx.memory[idstr][0] }) }
    : {}),
  call: (ctx: Context, request) => {
    const memory = ctx.memory[idstr]
    const { ascending = false, count, seed = 1, threads = 1 } = request as Request
    const pages = memory.length / PAGE
    const order = ascending ? Uint32Array.from({ length: pages }, (_, page) => page) : shuffled(pages, seed)
    return threads === 1 ? touch(memory, order, count) : touchByThreads(memory, order, count, threads)
  },
  save: () => new TextEncoder().encode("{\"ready\":true}"),
  restore: (ctx: Context) => {
    ctx.state = { ready: true }
  }
})
