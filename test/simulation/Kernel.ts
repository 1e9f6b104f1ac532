/**
 * The memory of one process and its userfaultfd, as Linux has them (the tables of userfaultfd's behaviour, each of which
 * was tried on a real kernel): a PAGEFAULT is read before a REMOVE whatever came first; from the moment a REMOVE is queued
 * until its caller has gone on, every COPY and ZEROPAGE fails with EAGAIN and the result −11; the pages go away only after
 * that; a COPY of several pages tells how far it came; closing the last descriptor shows zeros.
 *
 * A thread that touches memory gets a page or has to wait; it is woken, never answered, and touches again.
 */
import { Event, EVENT_WORDS, FLAG_MINOR } from "../../src/services/Userfaultfd.ts"

export const Errno = {
  ENOENT: -2,
  ESRCH: -3,
  EBADF: -9,
  EAGAIN: -11,
  ENOMEM: -12,
  EFAULT: -14,
  EEXIST: -17,
  EINVAL: -22
}

/** A thread in the kernel: waiting for a page, or for its REMOVE to be read. */
export interface Waiter {
  waiting: boolean
}

export interface Block {
  readonly idstr: string
  readonly length: number
  readonly address: number
  /** Pages that are mapped, by number. */
  readonly pages: Array<Uint8Array | undefined>
  /** What the memfd holds, in memfd mode; the mapped pages are the same arrays. */
  readonly file: Array<Uint8Array | undefined> | undefined
  /** Pages that were placed, or whose removal was read: those nobody has to send any more. */
  readonly settled: Uint8Array
  registered: boolean
}

interface Fault {
  readonly address: number
  readonly flags: number
  readonly waiter: Waiter
}

interface Removal {
  readonly start: number
  readonly end: number
  readonly waiter: Waiter
}

export interface Options {
  readonly pageSize: number
  readonly memfd: boolean
  /** No ZEROPAGE, as on hugetlbfs. */
  readonly huge: boolean
  /** Bytes between two blocks. */
  readonly gap: number
  readonly blocks: ReadonlyArray<{ readonly idstr: string; readonly length: number }>
  /** Counts what the kernel answered. */
  readonly count: (what: string) => void
}

const FIRST_ADDRESS = 0x7f00_0000_0000

export class Kernel {
  readonly pageSize: number
  readonly blocks: ReadonlyArray<Block>
  /** Open descriptors of the userfaultfd; it is closed with the last. */
  holders = 0
  /** Whether there is a userfaultfd at all, open or closed. */
  served = false
  /** The process is gone. */
  gone = false
  /** The page that the daemon is about to install, or -1: where a guest's thread does the most harm. */
  near = -1
  /** The page that was placed last, or -1. */
  placed = -1
  /** One COPY fails with ENOMEM, when so many pages or fewer are missing. */
  exhaustedAt = 0
  readonly #huge: boolean
  readonly #count: (what: string) => void
  readonly #pending: Array<Fault> = []
  readonly #asleep: Array<Fault> = []
  readonly #removals: Array<Removal> = []
  #changing = 0

  constructor({ blocks, count, gap, huge, memfd, pageSize }: Options) {
    this.pageSize = pageSize
    this.#huge = huge
    this.#count = count
    let next = FIRST_ADDRESS
    this.blocks = blocks.map(({ idstr, length }): Block => {
      const address = next
      const pages = Math.ceil(length / pageSize)
      next += pages * pageSize + gap
      return {
        idstr,
        length,
        address,
        pages: Array.from({ length: pages }, () => undefined),
        file: memfd ? Array.from({ length: pages }, () => undefined) : undefined,
        settled: new Uint8Array(pages),
        registered: false
      }
    })
  }

  get open(): boolean {
    return this.served && this.holders > 0
  }
  /** Threads that wait for a page. */
  get waiting(): number {
    return this.#pending.length + this.#asleep.length
  }
  get readable(): boolean {
    return this.open && this.#pending.length + this.#removals.length > 0
  }

  /** Pages that still have to come. */
  get missing(): number {
    let n = 0
    for (const { settled } of this.blocks) for (const one of settled) n += 1 - one
    return n
  }

  block(idstr: string): Block {
    return this.blocks.find((block) => block.idstr === idstr)!
  }

  /** Block and page of an address, by number. */
  at(address: number): readonly [block: number, page: number] | undefined {
    for (const [block, { address: start, pages }] of this.blocks.entries()) {
      const page = (address - start) / this.pageSize
      if (page >= 0 && page < pages.length) return [block, page]
    }
    return undefined
  }

  // ------------------------------------------------------------------------------------------------ the guest's threads

  /** The page, or nothing: then `waiter` waits. */
  touch(block: Block, page: number, waiter: Waiter): Uint8Array | undefined {
    const here = block.pages[page]
    if (here !== undefined) return here
    const stored = block.file?.[page]
    if (!block.registered) {
      const mapped = stored ?? new Uint8Array(this.pageSize)
      if (block.file !== undefined) block.file[page] = mapped
      block.pages[page] = mapped
      return mapped
    }
    waiter.waiting = true
    this.#pending.push({
      address: block.address + page * this.pageSize,
      flags: stored === undefined ? 0 : FLAG_MINOR,
      waiter
    })
    return undefined
  }

  /** Begins to give pages back: whether the caller waits until the event was read. */
  beginRemoval(block: Block, page: number, count: number, waiter: Waiter): boolean {
    if (!this.open || !block.registered) return false
    const start = block.address + page * this.pageSize
    this.#removals.push({ start, end: start + count * this.pageSize, waiter })
    this.#changing++
    waiter.waiting = true
    return true
  }
  /** The caller goes on after its event was read: from here on COPY works again, and the pages are still there. */
  endRemoval(): void {
    this.#changing--
  }
  /** One page goes away. */
  zap(block: Block, page: number): void {
    block.pages[page] = undefined
    if (block.file !== undefined) block.file[page] = undefined
  }

  // ------------------------------------------------------------------------------------------------ the registering side

  register(): void {
    this.served = true
    this.holders = 1
    for (const block of this.blocks) {
      block.pages.fill(undefined)
      block.file?.fill(undefined)
      block.registered = true
    }
  }
  unregister(): void {
    for (const block of this.blocks) block.registered = false
    this.#wakeAll()
  }
  /** The registration of one block ends. */
  unregisterRange(address: number, length: number): void {
    for (const block of this.blocks) if (block.address === address) block.registered = false
    this.wake(address, length)
  }
  /** One descriptor of the userfaultfd is closed. */
  close(): void {
    if (--this.holders > 0) return
    for (const block of this.blocks) block.registered = false
    this.#wakeAll()
    for (const { waiter } of this.#removals) waiter.waiting = false
    this.#removals.length = 0
  }

  // ------------------------------------------------------------------------------------------------ the serving side

  /** Reads up to `room` events into `ring`. */
  read(ring: Float64Array, room: number): number {
    if (!this.open) return Errno.EBADF
    let n = 0
    const put = (event: number, a: number, b: number) => {
      ring[n * EVENT_WORDS] = event
      ring[n * EVENT_WORDS + 1] = a
      ring[n * EVENT_WORDS + 2] = b
      n++
    }
    while (n < room && this.#pending.length > 0) {
      const fault = this.#pending.shift()!
      this.#asleep.push(fault)
      put(Event.PageFault, fault.flags, fault.address)
    }
    while (n < room && this.#removals.length > 0) {
      const { end, start, waiter } = this.#removals.shift()!
      waiter.waiting = false
      this.#settle(start, end - start)
      put(Event.Remove, start, end)
    }
    return n
  }

  /** Writes to a memfd through another mapping: the guest does not see it before the page is mapped. */
  stage(block: Block, offset: number, from: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length;) {
      const page = Math.floor((offset + done) / this.pageSize)
      const within = (offset + done) % this.pageSize
      const part = Math.min(length - done, this.pageSize - within)
      const stored = block.file![page] ??= new Uint8Array(this.pageSize)
      stored.set(from.subarray(at + done, at + done + part), within)
      done += part
    }
  }
  /** Punches a hole: the pages of a memfd are gone, and no event tells of it. */
  unstage(block: Block, offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += this.pageSize) this.zap(block, at / this.pageSize)
  }

  copy(address: number, source: Uint8Array, offset: number, length: number): number {
    if (this.exhaustedAt > 0 && this.missing <= this.exhaustedAt) {
      this.exhaustedAt = 0
      this.#count("fault: kernel has no memory")
      return this.#answer("COPY", Errno.ENOMEM)
    }
    return this.#place("COPY", address, length, (block, page, done) => {
      if (block.file?.[page] !== undefined) return Errno.EEXIST
      const from = offset + done
      const bytes = source.slice(from, from + this.pageSize)
      block.pages[page] = bytes
      if (block.file !== undefined) block.file[page] = bytes
      return 0
    })
  }

  zeropage(address: number, length: number): number {
    if (this.#huge) return this.#answer("ZEROPAGE", Errno.EINVAL)
    return this.#place("ZEROPAGE", address, length, (block, page) => {
      if (block.file?.[page] !== undefined) return Errno.EEXIST
      const bytes = new Uint8Array(this.pageSize)
      block.pages[page] = bytes
      if (block.file !== undefined) block.file[page] = bytes
      return 0
    })
  }

  continueRange(address: number, length: number): number {
    return this.#place("CONTINUE", address, length, (block, page) => {
      const stored = block.file?.[page]
      if (stored === undefined) return Errno.EFAULT
      block.pages[page] = stored
      return 0
    })
  }

  wake(address: number, length: number): number {
    if (!this.open) return Errno.EBADF
    for (const list of [this.#pending, this.#asleep]) {
      for (let i = list.length - 1; i >= 0; i--) {
        const fault = list[i]!
        if (fault.address < address || fault.address >= address + length) continue
        fault.waiter.waiting = false
        list.splice(i, 1)
      }
    }
    return 0
  }

  /** Where an address is; a page of a block that is registered. */
  #find(address: number): readonly [Block, number] | undefined {
    for (const block of this.blocks) {
      const page = (address - block.address) / this.pageSize
      if (page >= 0 && page < block.pages.length) return block.registered ? [block, page] : undefined
    }
    return undefined
  }

  #place(
    what: string,
    address: number,
    length: number,
    put: (block: Block, page: number, done: number) => number
  ): number {
    if (!this.open) return this.#answer(what, Errno.EBADF)
    if (this.gone) return this.#answer(what, Errno.ESRCH)
    if (address % this.pageSize !== 0 || length % this.pageSize !== 0 || length <= 0) {
      return this.#answer(what, Errno.EINVAL)
    }
    if (this.#changing > 0) return this.#answer(what, Errno.EAGAIN)
    let done = 0
    let error = 0
    for (; done < length; done += this.pageSize) {
      const found = this.#find(address + done)
      error = found === undefined
        ? Errno.ENOENT
        : found[0].pages[found[1]] !== undefined
        ? Errno.EEXIST
        : put(found[0], found[1], done)
      if (error !== 0) break
    }
    if (done > 0) {
      this.placed = address + done - this.pageSize
      this.#settle(address, done)
      this.wake(address, done)
    }
    return this.#answer(what, done > 0 ? done : error)
  }

  #settle(address: number, length: number): void {
    for (let at = 0; at < length; at += this.pageSize) {
      const found = this.#find(address + at)
      if (found !== undefined) found[0].settled[found[1]] = 1
    }
  }

  #answer(what: string, result: number): number {
    this.#count(`kernel ${what} ${result > 0 ? "done" : String(result)}`)
    return result
  }

  #wakeAll(): void {
    for (const { waiter } of this.#pending) waiter.waiting = false
    for (const { waiter } of this.#asleep) waiter.waiting = false
    this.#pending.length = 0
    this.#asleep.length = 0
  }
}
