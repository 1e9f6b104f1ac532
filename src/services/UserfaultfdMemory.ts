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
const EFAULT = -14
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
  /** Gives host pages back (madvise): waits until the event is read; only then they are dropped, from a memfd as well. */
  readonly discard: (idstr: string, page: number, count: number) => Effect.Effect<void>
  /** Host pages that are in place. */
  readonly present: () => number
  /** Threads that wait for a page. */
  readonly waiting: () => number
  /** The kernel reclaims the mapping of a page of a memfd: its content stays. */
  readonly unmap: (idstr: string, page: number) => void
  /** Blocks whose registration has ended, by idstr. */
  readonly unregistered: () => ReadonlyArray<string>
}

export interface Options {
  readonly blocks: ReadonlyArray<
    { readonly idstr: string; readonly length: number; readonly mode?: RegisteredBlock["mode"] }
  >
  /** Of all blocks. Default 4096. */
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
    /** What is mapped, by address; and what the memfds of blocks of mode "continue" hold. */
    const pages = new Map<number, Uint8Array>()
    const files = new Map<number, Uint8Array>()
    const ended = new Set<string>()
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
    const blocks = options.blocks.map(({ idstr, length, mode = "copy" }): RegisteredBlock => {
      const address = next
      next += Math.ceil(length / hostPageSize + 16) * hostPageSize
      return { idstr, length, address, hostPageSize, mode }
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
    const blockAt = (address: number) =>
      blocks.find((block) =>
        address >= block.address && address < block.address + Math.ceil(block.length / hostPageSize) * hostPageSize
      )
    const registered = (address: number) => {
      const block = blockAt(address)
      return block !== undefined && !ended.has(block.idstr)
    }
    const isShared = (address: number) => blockAt(address)?.mode === "continue"
    const release = (address: number) => {
      for (const waiter of waiters.get(address) ?? []) Deferred.doneUnsafe(waiter, Effect.void)
      waiters.delete(address)
    }
    /** `bytes` undefined: what the memfd holds. */
    const place = (address: number, bytes: Uint8Array | undefined): number => {
      if (!open) return EBADF
      if (removals.length > 0 || changing > 0) return EAGAIN
      if (!registered(address)) return ENOENT
      const file = files.get(address)
      if (pages.has(address) || (bytes !== undefined && file !== undefined)) return EEXIST
      const page = bytes ?? file
      if (page === undefined) return EFAULT
      pages.set(address, page)
      if (isShared(address)) files.set(address, page)
      release(address)
      return hostPageSize
    }
    const touch = (address: number): Effect.Effect<Uint8Array> =>
      Effect.gen(function*() {
        while (true) {
          const page = pages.get(address)
          if (page !== undefined) return page
          if (!open || !registered(address)) {
            const zeros = files.get(address) ?? new Uint8Array(hostPageSize)
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
        copyRun: (address, source, offset, stride, pageSize, count) => {
          for (let i = 0; i < count; i++) {
            const at = offset + i * stride
            const n = place(address + i * pageSize, source.slice(at, at + pageSize))
            if (n === EEXIST) release(address + i * pageSize)
            else if (n < 0) return i
          }
          return count
        },
        zeropage: (address, length) => {
          for (let at = 0; at < length; at += hostPageSize) {
            const n = place(address + at, new Uint8Array(hostPageSize))
            if (n < 0) return at > 0 ? at : n
          }
          return length
        },
        continueRange: (address) => place(address, undefined),
        wake: (address) => {
          release(address)
          return 0
        },
        unregister: (address) => {
          const block = blockAt(address)
          if (block === undefined) return
          ended.add(block.idstr)
          for (const waited of waiters.keys()) if (blockAt(waited) === block) release(waited)
        },
        staged: (idstr) => {
          const { address: base } = blocks.find((block) => block.idstr === idstr)!
          const change = (
            offset: number,
            length: number,
            write: (page: Uint8Array, at: number, from: number, n: number) => void
          ) => {
            for (let at = offset; at < offset + length;) {
              const address = base + Math.floor(at / hostPageSize) * hostPageSize
              const within = base + at - address
              const n = Math.min(hostPageSize - within, offset + length - at)
              const page = files.get(address) ?? new Uint8Array(hostPageSize)
              files.set(address, page)
              write(page, within, at - offset, n)
              at += n
            }
          }
          return {
            write: (offset, from, at, length) =>
              change(offset, length, (page, within, done, n) =>
                page.set(from.subarray(at + done, at + done + n), within)),
            clear: (offset, length) =>
              change(offset, length, (page, within, _done, n) =>
                page.fill(0, within, within + n))
          }
        },
        close: () => {
          open = false
          onBurst = undefined
          for (const address of waiters.keys()) {
            release(address)
          }
        }
      },
      read: (idstr, page) =>
        Effect.map(touch(addressOf(idstr, page)), (bytes) => bytes.slice()),
      write: (idstr, page, byte) =>
        Effect.map(touch(addressOf(idstr, page)), (bytes) => {
          bytes[0] = byte
        }),
      discard: (idstr, page, count) =>
        Effect.suspend(() => {
          const start = addressOf(idstr, page)
          const end = start + count * hostPageSize
          const drop = () => {
            for (let address = start; address < end; address += hostPageSize) {
              pages.delete(address)
              files.delete(address)
            }
          }
          if (!open || !registered(start)) return Effect.sync(drop)
          const read = Deferred.makeUnsafe<void>()
          removals.push({ start, end, read })
          tell()
          return Effect.andThen(Deferred.await(read), Effect.sync(drop))
        }),
      present: () => pages.size,
      unmap: (idstr, page) => {
        pages.delete(addressOf(idstr, page))
      },
      unregistered: () => [...ended],
      waiting: () => [...waiters.values()].reduce((sum, list) => sum + list.length, 0)
    }
  })
