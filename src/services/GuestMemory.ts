/**
 * The source's view of the guest's memory: what the sender reads pages from while the guest is stopped. Pages are read
 * by the addon through the region's owner, or from shared buffers where there is no addon.
 *
 * Hot path: no Effect per page.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LoadedBlock } from "../guests/Vcpu.ts"
import { GuestFailed } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import type { RamBlock } from "../protocol/RamBlock.ts"
import { type Link, plainDescriptor } from "./Link.ts"

const ENOSYS = -38

/** One block's bytes. Offsets and lengths are bytes within the block; the caller keeps them inside. */
export interface SourceBlock extends RamBlock {
  /** Bytes that travel together, a multiple of the target page size: a huge page of the destination. Default one page. */
  readonly hostPageSize?: number
  /** The byte that the whole range repeats, or a negative number. */
  readonly fillByte: (offset: number, length: number) => number
  /** Copies the range to `into` at `at`; a negative number (-errno) when the memory is gone. */
  readonly read: (offset: number, into: Uint8Array, at: number, length: number) => number
  /**
   * Answers simple requests that come over the link, see {@link PageExchange.Answer}: pages answered, or -errno. A block
   * or a link without it is answered request by request.
   */
  readonly answer?: (
    link: Link,
    plan: Float64Array,
    dirty: Uint8Array,
    input: Uint8Array,
    output: Uint8Array
  ) => number
  /**
   * Sends ranges as records that continue the block, from where they lie: bytes of them in `rest` that the link has not
   * taken, or -errno when nothing was sent. `ranges` is that of {@link SourceBlock.gather}; without `fillFlags` (0) a range
   * of one byte travels whole.
   */
  readonly send?: (
    link: Link,
    ranges: Float64Array,
    count: number,
    flags: number,
    fillFlags: number,
    rest: Uint8Array
  ) => number
  /**
   * Both at once, for many ranges: puts them into `into` from `at` on, each behind a gap for its header. `ranges` has
   * {@link RANGE_WORDS} numbers a range: offset, length, bytes of the gap, and, written back, the byte that the whole range
   * repeats, or -1; of such a range only that byte is put there. How many of `count` ranges were taken, all that fit; a
   * negative number (-errno) when the memory is gone. A block without it is read page by page.
   */
  readonly gather?: (ranges: Float64Array, count: number, into: Uint8Array, at: number) => number
}

/** Numbers a range takes in the list of {@link SourceBlock.gather}. */
export const RANGE_WORDS = 4

export interface GuestMemoryShape {
  /** Opens the blocks for reading until the scope ends. */
  readonly open: (
    blocks: ReadonlyArray<LoadedBlock>
  ) => Effect.Effect<ReadonlyArray<SourceBlock>, GuestFailed, Scope.Scope>
}

/** A block over bytes of this thread: the reference for the addon's, and the fallback without it. */
export const fromBytes = (idstr: string, bytes: Uint8Array): SourceBlock => ({
  idstr,
  length: bytes.length,
  fillByte: (offset, length) => {
    const first = bytes[offset]!
    for (let i = offset + 1; i < offset + length; i++) if (bytes[i] !== first) return -1
    return first
  },
  read: (offset, into, at, length) => {
    into.set(bytes.subarray(offset, offset + length), at)
    return length
  },
  gather: (ranges, count, into, at) => {
    let end = at
    let done = 0
    for (; done < count; done++) {
      const words = done * RANGE_WORDS
      const offset = ranges[words]!
      const length = ranges[words + 1]!
      const start = end + ranges[words + 2]!
      if (start + length > into.length) break
      const first = bytes[offset]!
      let i = offset + 1
      while (i < offset + length && bytes[i] === first) i++
      const uniform = i === offset + length
      ranges[words + 3] = uniform ? first : -1
      if (uniform) into[start] = first
      else into.set(bytes.subarray(offset, offset + length), start)
      end = start + (uniform ? 1 : length)
    }
    return done
  }
})

const native: GuestMemoryShape = {
  open: (blocks) =>
    Effect.forEach(blocks, ({ idstr, length, memory }) => {
      if (memory._tag === "Shared") return Effect.succeed(fromBytes(idstr, new Uint8Array(memory.buffer, 0, length)))
      return Effect.acquireRelease(
        Effect.try({
          try: () => Binding.require().Region.adopt(memory.token),
          catch: (cause) =>
            new GuestFailed({ phase: "memory", detail: `block ${idstr} is gone: ${(cause as Error).message}` })
        }),
        (region) => Effect.sync(() => region.close())
      ).pipe(Effect.map((region): SourceBlock => ({
        idstr,
        length,
        fillByte: (offset, n) => region.fillByte(offset, n),
        read: (offset, into, at, n) => region.read(offset, into, at, n),
        answer: (link, plan, dirty, input, output) => {
          const descriptor = plainDescriptor(link)
          if (descriptor === undefined) return ENOSYS
          return Binding.require().answerRequests(descriptor, region, plan, dirty, input, output)
        },
        send: (link, ranges, count, flags, fillFlags, rest) => {
          const descriptor = plainDescriptor(link)
          if (descriptor === undefined) return ENOSYS
          return Binding.require().sendRanges(descriptor, region, ranges, count, flags, fillFlags, rest)
        },
        gather: (ranges, count, into, at) => Binding.require().gatherRanges(region, ranges, count, into, at)
      })))
    })
}

export const GuestMemory: Context.Reference<GuestMemoryShape> = Context.Reference("postcopy/services/GuestMemory", {
  defaultValue: () => native
})
