/**
 * A userfaultfd without a kernel: memory in which a touch of a missing page waits, and the serving side of it. It obeys the
 * kernel's rules where they bite: PAGEFAULT is read before REMOVE whatever came first, one REMOVE that is not read and
 * acknowledged makes every COPY fail with EAGAIN, and closing it shows zeros to whoever waits.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { Event, EVENT_WORDS, type FaultChannel, type RegisteredBlock } from "./Userfaultfd.ts"

const EAGAIN = -11
const EEXIST = -17
const ENOENT = -2
const EBADF = -9

export interface ModelMemory {
  readonly hostPageSize: number
  readonly blocks: ReadonlyArray<RegisteredBlock>
  /** What the daemon serves. */
  readonly channel: FaultChannel
  /** Reads a host page as a guest's thread would: waits while it is missing. A copy. */
  readonly read: (idstr: string, page: number) => Effect.Effect<Uint8Array>
  /** Writes a byte at the start of a host page, waiting for the page first. */
  readonly write: (idstr: string, page: number, byte: number) => Effect.Effect<void>
  /** Gives host pages back (madvise): waits until the event is read. */
  readonly discard: (idstr: string, page: number, count: number) => Effect.Effect<void>
  /** Host pages that are in place. */
  readonly present: () => number
  /** Threads that wait for a page. */
  readonly waiting: () => number
}

export interface Options {
  readonly blocks: ReadonlyArray<{ readonly idstr: string; readonly length: number }>
  readonly hostPageSize?: number
}

interface Removal {
  readonly start: number
  readonly end: number
  readonly read: Deferred.Deferred<void>
}

/** Events a ring takes. */
const RING_EVENTS = 64
/** Blocks lie apart, so that an address out of one is in none. */
const FIRST_ADDRESS = 0x7f00_0000_0000

export const make = (options: Options): Effect.Effect<ModelMemory> =>
  Effect.gen(function*() {
    const { hostPageSize = 4096 } = options
    const context = yield* Effect.context<never>()
    const pages = new Map<number, Uint8Array>()
    const waiters = new Map<number, Array<Deferred.Deferred<void>>>()
    const faults: Array<number> = []
    const removals: Array<Removal> = []
    const ring = new Float64Array(RING_EVENTS * EVENT_WORDS)
    /** Removals read by the daemon whose callers have not gone on yet: COPY fails until then. */
    let changing = 0
    let open = true
    let onBurst: ((count: number) => void) | undefined
    let scheduled = false
    let next = FIRST_ADDRESS
    const blocks = options.blocks.map(({ idstr, length }): RegisteredBlock => {
      const address = next
      next += Math.ceil(length / hostPageSize + 16) * hostPageSize
      return { idstr, length, address }
    })
    const later = (run: () => void) => {
      Effect.runForkWith(context)(Effect.andThen(Effect.yieldNow, Effect.sync(run)))
    }
    const tell = () => {
      if (onBurst === undefined || scheduled || faults.length + removals.length === 0) return
      scheduled = true
      later(() => {
        scheduled = false
        if (!open || onBurst === undefined) return
        const n = drain()
        if (n > 0) onBurst(n)
        tell()
      })
    }
    const drain = (): number => {
      let n = 0
      const put = (event: number, a: number, b: number) => {
        ring.set([event, a, b, 0], n * EVENT_WORDS)
        n++
      }
      while (n < RING_EVENTS && faults.length > 0) put(Event.PageFault, 0, faults.shift()!)
      while (n < RING_EVENTS && removals.length > 0) {
        const { end, read, start } = removals.shift()!
        put(Event.Remove, start, end)
        changing++
        later(() => {
          changing--
          Deferred.doneUnsafe(read, Effect.void)
        })
      }
      return n
    }
    const addressOf = (idstr: string, page: number) =>
      blocks.find((block) => block.idstr === idstr)!.address + page * hostPageSize
    const registered = (address: number) =>
      blocks.some((block) =>
        address >= block.address && address < block.address + Math.ceil(block.length / hostPageSize) * hostPageSize
      )
    const release = (address: number) => {
      for (const waiter of waiters.get(address) ?? []) Deferred.doneUnsafe(waiter, Effect.void)
      waiters.delete(address)
    }
    const place = (address: number, bytes: Uint8Array): number => {
      if (!open) return EBADF
      if (removals.length > 0 || changing > 0) return EAGAIN
      if (!registered(address)) return ENOENT
      if (pages.has(address)) return EEXIST
      pages.set(address, bytes)
      release(address)
      return hostPageSize
    }
    const touch = (address: number): Effect.Effect<Uint8Array> =>
      Effect.gen(function*() {
        while (true) {
          const page = pages.get(address)
          if (page !== undefined) return page
          if (!open) {
            const zeros = new Uint8Array(hostPageSize)
            pages.set(address, zeros)
            return zeros
          }
          const waiter = Deferred.makeUnsafe<void>()
          waiters.set(address, [...(waiters.get(address) ?? []), waiter])
          faults.push(address)
          tell()
          yield* Deferred.await(waiter)
        }
      })
    return {
      hostPageSize,
      blocks,
      channel: {
        ring,
        attach: (callback) => {
          onBurst = callback
          tell()
        },
        drain,
        copy: (address, source, offset, length) => {
          for (let at = 0; at < length; at += hostPageSize) {
            const n = place(address + at, source.slice(offset + at, offset + at + hostPageSize))
            if (n < 0) return at > 0 ? at : n
          }
          return length
        },
        zeropage: (address) => place(address, new Uint8Array(hostPageSize)),
        continueRange: () => EEXIST,
        wake: (address) => {
          release(address)
          return 0
        },
        close: () => {
          open = false
          onBurst = undefined
          for (const address of waiters.keys()) release(address)
        }
      },
      read: (idstr, page) => Effect.map(touch(addressOf(idstr, page)), (bytes) => bytes.slice()),
      write: (idstr, page, byte) =>
        Effect.map(touch(addressOf(idstr, page)), (bytes) => {
          bytes[0] = byte
        }),
      discard: (idstr, page, count) =>
        Effect.suspend(() => {
          const start = addressOf(idstr, page)
          const end = start + count * hostPageSize
          for (let address = start; address < end; address += hostPageSize) pages.delete(address)
          if (!open) return Effect.void
          const read = Deferred.makeUnsafe<void>()
          removals.push({ start, end, read })
          tell()
          return Deferred.await(read)
        }),
      present: () => pages.size,
      waiting: () => [...waiters.values()].reduce((sum, list) => sum + list.length, 0)
    }
  })
