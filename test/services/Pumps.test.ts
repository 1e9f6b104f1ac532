/**
 * The two pumps of the data path, each as a pure reference and over the addon: one contract, run against both. The
 * source's gathers ranges of guest memory between gaps for headers; the daemon's installs a run of pages.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as Binding from "../../src/native/Binding.ts"
import { fromBytes, GuestMemory, RANGE_WORDS, type SourceBlock } from "../../src/services/GuestMemory.ts"
import { type FaultChannel, serve, Userfaultfd } from "../../src/services/Userfaultfd.ts"
import * as UserfaultfdMemory from "../../src/services/UserfaultfdMemory.ts"
import { PAGE } from "../actors/Contents.ts"

const PAGES = 16
const addon = Binding.require()

const loaded = (token: bigint) => ({
  idstr: "ram",
  length: PAGES * PAGE,
  maximum: PAGES * PAGE,
  hostPageSize: PAGE,
  memory: { _tag: "Region", token, backing: "anonymous" } as const
})

const region = Effect.acquireRelease(
  Effect.sync(() => addon.Region.anonymous(PAGES * PAGE)),
  (mapped) => Effect.sync(() => mapped.close())
)

// ---------------------------------------------------------------------------------------------- the source's

/** Pages of mixed bytes, of one byte, and one that differs from uniform in its last byte alone. */
const memory = () => {
  const bytes = new Uint8Array(PAGES * PAGE)
  for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31 + (at >> 12)) & 0xff
  bytes.fill(0, 2 * PAGE, 3 * PAGE)
  bytes.fill(0xff, 5 * PAGE, 6 * PAGE)
  bytes.fill(7, 6 * PAGE, 7 * PAGE)
  bytes[7 * PAGE - 1] = 8
  return bytes
}

const gatherers: Record<string, Effect.Effect<SourceBlock, unknown, Scope.Scope>> = {
  reference: Effect.sync(() => fromBytes("ram", memory())),
  addon: Effect.gen(function*() {
    const mapped = yield* region
    new Uint8Array(mapped.buffer()).set(memory())
    const [block] = yield* (yield* GuestMemory).open([loaded(mapped.share())])
    return block!
  })
}

describe.each(Object.entries(gatherers))("gathering by the %s", (_, open) => {
  const rangesOf = (...ranges: ReadonlyArray<readonly [offset: number, length: number, gap: number]>) => {
    const words = new Float64Array(ranges.length * RANGE_WORDS)
    ranges.forEach(([offset, length, gap], i) => words.set([offset, length, gap, -2], i * RANGE_WORDS))
    return words
  }

  it.live("puts each range behind its gap, a uniform one as one byte, and touches nothing else", () =>
    Effect.gen(function*() {
      const block = yield* open
      const into = new Uint8Array(5 * PAGE).fill(0xaa)
      const ranges = rangesOf([3 * PAGE, PAGE, 8], [2 * PAGE, PAGE, 8], [6 * PAGE, PAGE, 12], [5 * PAGE, PAGE, 0])
      assert.strictEqual(block.gather!(ranges, 4, into, 3), 4)
      assert.deepStrictEqual([3, 7, 11, 15].map((word) => ranges[word]), [-1, 0, -1, 0xff])
      const bytes = memory()
      const expected = new Uint8Array(5 * PAGE).fill(0xaa)
      let at = 3 + 8
      expected.set(bytes.subarray(3 * PAGE, 4 * PAGE), at)
      at += PAGE + 8
      expected[at] = 0
      at += 1 + 12
      expected.set(bytes.subarray(6 * PAGE, 7 * PAGE), at)
      expected[at + PAGE] = 0xff
      assert.deepStrictEqual(into, expected)
    }).pipe(Effect.scoped))

  it.live("takes as many as fit, and only as many as it is told", () =>
    Effect.gen(function*() {
      const block = yield* open
      const ranges = rangesOf([0, PAGE, 8], [PAGE, PAGE, 8], [3 * PAGE, PAGE, 8])
      assert.strictEqual(block.gather!(ranges, 3, new Uint8Array(2 * (PAGE + 8)), 0), 2)
      assert.strictEqual(block.gather!(ranges, 3, new Uint8Array(2 * (PAGE + 8) - 1), 0), 1)
      assert.strictEqual(block.gather!(ranges, 1, new Uint8Array(3 * (PAGE + 8)), 0), 1)
      assert.strictEqual(block.gather!(ranges, 3, new Uint8Array(PAGE), 0), 0)
    }).pipe(Effect.scoped))
})

// ---------------------------------------------------------------------------------------------- the daemon's

interface Installing {
  readonly uffd: FaultChannel
  readonly address: number
  /** What the guest would see of a page that is there. */
  readonly page: (index: number) => Effect.Effect<Uint8Array>
}

const installers: Record<string, Effect.Effect<Installing, unknown, Scope.Scope>> = {
  reference: Effect.gen(function*() {
    const model = yield* UserfaultfdMemory.make({ blocks: [{ idstr: "ram", length: PAGES * PAGE }] })
    return { uffd: model.channel, address: model.blocks[0]!.address, page: (index) => model.read("ram", index) }
  }),
  addon: Effect.gen(function*() {
    const mapped = yield* region
    const { blocks, descriptor } = yield* (yield* Userfaultfd).register([loaded(mapped.share())], () => true)
    const uffd = yield* Effect.acquireRelease(
      Effect.sync(() => serve(addon, descriptor!.dup(), blocks, [])),
      (channel) => Effect.sync(() => channel.close())
    )
    return {
      uffd,
      address: blocks[0]!.address,
      page: (index) =>
        Effect.sync(() => {
          const bytes = new Uint8Array(PAGE)
          mapped.read(index * PAGE, bytes, 0, PAGE)
          return bytes
        })
    }
  })
}

describe.each(Object.entries(installers))("installing a run by the %s", (_, open) => {
  const STRIDE = PAGE + 8
  const source = Uint8Array.from({ length: 3 + PAGES * STRIDE }, (_, at) => (at * 131 + (at >> 9)) & 0xff)
  const content = (index: number) => source.slice(3 + index * STRIDE, 3 + index * STRIDE + PAGE)

  it.live("takes the pages from between the headers", () =>
    Effect.gen(function*() {
      const { address, page, uffd } = yield* open
      assert.strictEqual(uffd.copyRun(address + 2 * PAGE, source, 3 + 2 * STRIDE, STRIDE, PAGE, 9), 9)
      for (let index = 2; index < 11; index++) {
        assert.deepStrictEqual(yield* page(index), content(index), `page ${index}`)
      }
      assert.strictEqual(uffd.copyRun(address, source, 3, STRIDE, PAGE, 1), 1)
      assert.deepStrictEqual(yield* page(0), content(0))
    }).pipe(Effect.scoped))

  it.live("counts a page that is there already as placed, and leaves it as it is", () =>
    Effect.gen(function*() {
      const { address, page, uffd } = yield* open
      assert.strictEqual(uffd.zeropage(address + 4 * PAGE, PAGE), PAGE)
      assert.strictEqual(uffd.copyRun(address + 3 * PAGE, source, 3 + 3 * STRIDE, STRIDE, PAGE, 3), 3)
      assert.deepStrictEqual(yield* page(3), content(3))
      assert.deepStrictEqual(yield* page(4), new Uint8Array(PAGE))
      assert.deepStrictEqual(yield* page(5), content(5))
    }).pipe(Effect.scoped))

  it.live("says how far it came when the memory ends", () =>
    Effect.gen(function*() {
      const { address, page, uffd } = yield* open
      assert.strictEqual(uffd.copyRun(address + (PAGES - 2) * PAGE, source, 3, STRIDE, PAGE, 4), 2)
      assert.deepStrictEqual(yield* page(PAGES - 1), content(1))
      assert.strictEqual(uffd.copyRun(address + PAGES * PAGE, source, 3, STRIDE, PAGE, 2), 0)
    }).pipe(Effect.scoped))

  it.live("installs many zero pages at once", () =>
    Effect.gen(function*() {
      const { address, page, uffd } = yield* open
      assert.strictEqual(uffd.zeropage(address, PAGES * PAGE), PAGES * PAGE)
      assert.deepStrictEqual(yield* page(PAGES - 1), new Uint8Array(PAGE))
    }).pipe(Effect.scoped))
})
