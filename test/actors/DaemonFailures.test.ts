/**
 * What the daemon does when pages cannot come any more: it says so to the guest's side and leaves the userfaultfd open,
 * so that whoever waits goes on waiting and is never shown zeros.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { PAGE, pageOf } from "./Contents.ts"
import * as DestinationRig from "./DestinationRig.ts"
import { settle, until } from "./Turns.ts"

const blocks = { "pc.ram": 4 * PAGE, "vga.vram": 2 * PAGE }
type Rig = Effect.Success<ReturnType<typeof DestinationRig.make>>

/** The daemon fails with a thread waiting; what it says of it. */
const failing = (rig: Rig, cause: Effect.Effect<void>) =>
  Effect.gen(function*() {
    const daemon = yield* rig.run
    const thread = yield* Effect.forkScoped(rig.memory.read("pc.ram", 2), { startImmediately: true })
    yield* until("the request", () => rig.requests.length > 0)
    yield* cause
    const ending = yield* Fiber.join(daemon)
    yield* settle
    assert.deepStrictEqual(rig.tags(), ["Ready", "Error"])
    assert.isUndefined(thread.pollUnsafe(), "the reader is parked")
    assert.strictEqual(rig.memory.waiting(), 1)
    assert.isFalse(rig.uffdClosed(), "the userfaultfd stays open")
    assert.strictEqual(rig.heard.eoc, 0, "nothing is confirmed")
    assert.strictEqual(ending._tag, "Failed")
    const detail = ending._tag === "Failed" ? ending.detail : ""
    assert.strictEqual(rig.counters.failure(), detail)
    return detail
  })

describe("pages that cannot come any more", () => {
  it.effect("B25: the end of the link is told as ERROR", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      assert.include(yield* failing(rig, Effect.sync(() => rig.source.close())), "before the end of the page stream")
    }))

  it.effect("B49: a reset of the link is told as ERROR", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      assert.include(yield* failing(rig, Effect.sync(() => rig.source.reset())), "ECONNRESET")
    }))

  it.effect("B23: a record cut off by the end of the link is no page", () =>
    Effect.gen(function*() {
      for (const length of [1, 7, 8, 14, 15, 2000, 4110]) {
        const rig = yield* DestinationRig.make({ blocks })
        const detail = yield* failing(
          rig,
          Effect.andThen(rig.feed(rig.page("pc.ram", 2).slice(0, length)), Effect.sync(() => rig.source.close()))
        )
        assert.include(detail, "inside a page record")
        assert.strictEqual(rig.memory.present(), 0)
      }
    }))

  it.effect("B23: the last record of a run, cut off by the end of the link, is no page", () =>
    Effect.gen(function*() {
      const lengths = { page: [1, 7, 8, 9, 2000, 4103], fill: [1, 7, 8] } as const
      for (const kind of ["page", "fill"] as const) {
        for (const length of lengths[kind]) {
          const rig = yield* DestinationRig.make({ blocks })
          const record = (page: number) => kind === "page" ? rig.page("pc.ram", page) : rig.fill("pc.ram", page, 5)
          const run = Uint8Array.from([...record(0), ...record(1), ...record(2).subarray(0, length)])
          const detail = yield* failing(rig, Effect.andThen(rig.feed(run), Effect.sync(() => rig.source.close())))
          assert.include(detail, "inside a page record")
          assert.strictEqual(rig.memory.present(), 2)
        }
      }
    }))

  it.effect("EOS with pages missing is told as ERROR, with their number", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      assert.include(yield* failing(rig, rig.feed(rig.page("pc.ram", 0), rig.eos)), "5 pages missing")
    }))

  const word = (...bytes: ReadonlyArray<number>) => Uint8Array.from(bytes)
  const name = [6, ...new TextEncoder().encode("pc.ram")]
  const malformed: ReadonlyArray<readonly [title: string, bytes: Uint8Array]> = [
    ["B26: a block list", word(0, 0, 0, 0, 0, 0, 0x40, 0x04)],
    ["B27: neither page nor fill", word(0, 0, 0, 0, 0, 0, 0, 0, ...name)],
    ["page and fill at once", word(0, 0, 0, 0, 0, 0, 0, 0x0a)],
    ["an unknown flag", word(0, 0, 0, 0, 0, 0, 0, 0x48)],
    ["CONTINUE before any block", word(0, 0, 0, 0, 0, 0, 0, 0x28)],
    ["an EOS with an offset", word(0, 0, 0, 0, 0, 0, 0x10, 0x10)],
    ["B28: an offset behind the block", word(0, 0, 0, 0, 0, 0, 0x40, 0x08, ...name)],
    ["B28: an offset of 64 bits", word(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0x08, ...name)],
    ["B28: an offset that is behind the block but for its upper half", word(0, 0, 0, 1, 0, 0, 0x10, 0x08, ...name)],
    ["B28: a name of no bytes", word(0, 0, 0, 0, 0, 0, 0, 0x08, 0)],
    ["B28: a block that is not there", word(0, 0, 0, 0, 0, 0, 0, 0x08, 5, ...name.slice(1, 6))]
  ]
  it.effect.each(malformed)("%s is told as ERROR, on the word that is wrong", ([, bytes]) =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      assert.include(yield* failing(rig, rig.feed(bytes)), "a page record that cannot be")
      assert.strictEqual(rig.memory.present(), 0)
    }))

  for (const kind of ["page", "fill"] as const) {
    for (const at of ["once", "twice"] as const) {
      it.effect(`B28: a ${kind} that continues behind its block's end is told as ERROR, read with the one before it at ${at}`, () =>
        Effect.gen(function*() {
          const rig = yield* DestinationRig.make({ blocks })
          const record = (page: number) => kind === "page" ? rig.page("pc.ram", page) : rig.fill("pc.ram", page, 5)
          const [last, behind] = [record(3), record(4)]
          const feeding = at === "once"
            ? rig.feed(Uint8Array.from([...last, ...behind]))
            : rig.feed(last).pipe(Effect.andThen(settle), Effect.andThen(rig.feed(behind)))
          assert.include(yield* failing(rig, feeding), "offset 16384 is beyond block \"pc.ram\"")
          assert.strictEqual(rig.memory.present(), 1)
        }))
    }
  }

  it.effect("a page that the kernel refuses is told as ERROR, and is not taken for installed", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({
        blocks,
        wrap: (uffd) => ({ ...uffd, copy: () => -14, copyRun: () => 0 })
      })
      assert.include(yield* failing(rig, rig.feed(rig.page("pc.ram", 2))), "EFAULT")
    }))

  it.effect("a page of a process that is gone is not tried for ever", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({
        blocks,
        wrap: (uffd) => ({ ...uffd, copy: () => -3, copyRun: () => 0 })
      })
      assert.include(yield* failing(rig, rig.feed(rig.page("pc.ram", 2))), "the guest's process is gone")
    }))

  it.effect("pages that have all arrived and of which one was refused are not complete", () =>
    Effect.gen(function*() {
      let left = 0
      const rig = yield* DestinationRig.make({
        blocks,
        wrap: (uffd) => ({
          ...uffd,
          copy: (...args) => --left === 0 ? -12 : uffd.copy(...args),
          copyRun: () => 0
        })
      })
      const pages = [["vga.vram", 0], ["vga.vram", 1], ["pc.ram", 0], ["pc.ram", 1], ["pc.ram", 3], [
        "pc.ram",
        2
      ]] as const
      left = pages.length
      const records = pages.map(([idstr, page]) => rig.page(idstr, page))
      assert.include(yield* failing(rig, rig.feed(...records)), "ENOMEM")
      assert.deepStrictEqual([rig.counters.missing(), rig.counters.complete()], [0, false])
    }))

  it.effect("everything in front of the wrong record is installed", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* failing(rig, rig.feed(rig.page("pc.ram", 0), rig.page("vga.vram", 1), word(0, 0, 0, 0, 0, 0, 0, 0x0a)))
      assert.strictEqual(rig.memory.present(), 2)
    }))
})

describe("a link that takes nothing", () => {
  it.effect("B22: is not written to for ever; what comes from it is read all the same", () =>
    Effect.gen(function*() {
      let writes = 0
      const rig = yield* DestinationRig.make({
        blocks,
        wrapLink: (link) => ({
          ...link,
          write: () => {
            writes++
            return 0
          }
        })
      })
      yield* rig.run
      yield* rig.feed(rig.page("pc.ram", 2))
      assert.deepStrictEqual(yield* rig.memory.read("pc.ram", 2), pageOf("pc.ram", 2))
      yield* Effect.forkScoped(rig.memory.read("pc.ram", 1), { startImmediately: true })
      yield* settle
      assert.strictEqual(writes, 1)
    }))
})

describe("a source that is gone with nothing missing", () => {
  const whole = (rig: Rig) => [
    ...[0, 1, 2, 3].map((page) => rig.page("pc.ram", page)),
    ...[0, 1].map((page) => rig.page("vga.vram", page)),
    rig.eos
  ]
  it.effect("is no failure: it sent everything and its EOS, and closed without waiting for EOC", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      const daemon = yield* rig.run
      yield* settle
      yield* rig.feed(...whole(rig))
      rig.source.close()
      yield* until("QUIT", () => rig.told.length > 1)
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.tags(), rig.memory.present()], [["Ready", "Quit"], 6])
    }))

  it.effect("B21: is no failure either where the daemon's first word finds it gone: what it sent is read", () =>
    Effect.gen(function*() {
      const rig = yield* DestinationRig.make({ blocks })
      yield* rig.feed(...whole(rig))
      rig.source.close()
      const daemon = yield* rig.run
      yield* until("QUIT", () => rig.told.length > 1)
      rig.tell(Pipe.quit("guest"))
      assert.deepStrictEqual(yield* Fiber.join(daemon), { _tag: "Finished" })
      assert.deepStrictEqual([rig.tags(), rig.memory.present()], [["Ready", "Quit"], 6])
    }))
})
