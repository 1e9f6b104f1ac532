/**
 * The relay between a scripted source and a scripted destination: a source that breaks off at any byte, says what cannot
 * be, says nothing, or comes back before its destination listens. What passes is never changed, and the relay says what
 * became of the migration.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Queue } from "effect"
import { TestClock } from "effect/testing"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { LinkFailed } from "../../src/MigrationError.ts"
import * as ReturnPath from "../../src/protocol/qemu/ReturnPath.ts"
import * as Stream from "../../src/protocol/qemu/Stream.ts"
import * as Image from "../../src/qemu/Image.ts"
import * as RelayMachine from "../../src/qemu/RelayMachine.ts"
import * as RelayTap from "../../src/qemu/RelayTap.ts"
import type { Link } from "../../src/services/Link.ts"
import { Links } from "../../src/services/Links.ts"
import { directory } from "../cli/Postcopy.ts"
import * as Samples from "../protocol/qemu/Samples.ts"
import { join as concat } from "../protocol/Streams.ts"
import { CutLink } from "./CutLink.ts"

/** A source that says these bytes and goes away. */
const source = (bytes: Uint8Array) => {
  const link = new CutLink(Infinity, true)
  link.say(bytes)
  link.end()
  return link
}

/** A source that says these bytes and stays until it hears that all is well. */
const patient = (bytes: Uint8Array) => {
  const link = new CutLink(Infinity, true, (one) => one.end())
  link.say(bytes)
  return link
}

const last = Stream.ending()

/** A destination that confirms what ended well, and goes away with its source. */
const destination = (confirms = true) =>
  new CutLink(Infinity, true, (link) => {
    const bytes = link.bytes()
    const tail = bytes.subarray(Math.max(0, bytes.length - last.length))
    if (confirms && Buffer.compare(tail, last) === 0) link.say(ReturnPath.shut(0))
  })

/** A relay whose sources and destinations are these, in turn; a function is told that nobody listens yet. */
const relay = (
  sources: ReadonlyArray<CutLink>,
  destinations: ReadonlyArray<CutLink | (() => void)>,
  tee?: string
) =>
  Effect.gen(function*() {
    const incoming = yield* Queue.unbounded<Link>()
    const there = [...destinations]
    const links = {
      connect: () =>
        Effect.suspend(() => {
          const link = there.shift()
          if (link instanceof CutLink) return Effect.succeed<Link>(link)
          link?.()
          return Effect.fail(new LinkFailed({ code: "ECONNREFUSED", detail: "nobody listens" }))
        }),
      listen: () => Effect.succeed({ uri: "unix:here", accept: Queue.take(incoming), close: Effect.void })
    }
    return yield* Effect.gen(function*() {
      const relaying = yield* RelayMachine.begin({ listen: "unix:here", connect: "unix:there", tee })
      for (const one of sources) {
        yield* Queue.offer(incoming, one)
        // One after the other: the next comes when this one is done with.
        while (!one.closed) {
          yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
          yield* TestClock.adjust("10 millis")
        }
      }
      return yield* Effect.exit(relaying.finished)
    }).pipe(Effect.provideService(Links, links), Effect.scoped)
  })

const reasonOf = <E extends { readonly _tag: string }>(exit: Exit.Exit<unknown, E>) => {
  if (Exit.isSuccess(exit)) return undefined
  const found = Cause.findErrorOption(exit.cause)
  return found._tag === "Some" ? found.value : undefined
}

const PAGE = Samples.PAGE
const blocks = [{ idstr: "pc.ram", length: 3 * PAGE, pageSize: PAGE }]
const pages = (() => {
  const encoder = Stream.pageEncoder(last)
  const header = new Uint8Array(64)
  return concat(...[0, 1, 2].map((page) => {
    const n = page === 0 ? encoder.fill(header, 0, "pc.ram", 0, 0) : encoder.page(header, 0, "pc.ram", page * PAGE)
    return concat(header.slice(0, n), page === 0 ? new Uint8Array(0) : Samples.pageBytes(page))
  }))
})()
const opening = Stream.opening({ ...Samples.snapshot, blocks })
const stream = concat(opening, pages, last)
const recovery = concat(Stream.recvBitmap("pc.ram"), Stream.postcopyResume(), Stream.resuming(), pages, last)
/** The first command after which a migration may be recovered has come whole. */
const switched = Buffer.from(opening).indexOf(Stream.postcopyRamDiscard("pc.ram", [{ start: 0, length: 3 * PAGE }])) +
  Stream.postcopyRamDiscard("pc.ram", [{ start: 0, length: 3 * PAGE }]).length

/** Every byte but those well inside of a page, of which some. */
const places = Array.from({ length: stream.length }, (_, at) => at + 1).filter((at) =>
  at < opening.length + 64 || at > opening.length + pages.length - 32 || at % 61 === 0
)

describe("a source behind the relay", () => {
  it.effect(
    "that goes away at any byte: what came is passed on, and only a switched migration is waited for",
    () =>
      Effect.gen(function*() {
        for (const at of places) {
          const first = destination()
          const second = destination()
          const exit = yield* relay([source(stream.subarray(0, at)), patient(recovery)], [first, second])
          assert.deepStrictEqual(first.bytes(), stream.slice(0, at), `${at}`)
          if (at < switched) {
            assert.strictEqual(reasonOf(exit)?._tag, "LinkFailed", `${at}`)
            continue
          }
          assert.isTrue(Exit.isSuccess(exit), `${at}`)
          if (Exit.isFailure(exit)) continue
          assert.strictEqual(exit.value.progress.phase, "completed")
          assert.strictEqual(exit.value.progress.received, 3)
          if (at < stream.length) assert.deepStrictEqual(second.bytes(), recovery)
        }
      }),
    60_000
  )

  it.effect("that comes back leaves the whole image, however little had come", () =>
    Effect.gen(function*() {
      for (const at of [switched, opening.length, opening.length + PAGE, opening.length + pages.length]) {
        const path = join(directory(), "image")
        const exit = yield* relay(
          [source(stream.subarray(0, at)), patient(recovery)],
          [destination(), destination()],
          path
        )
        if (at < opening.length) {
          // The devices never came.
          assert.strictEqual(reasonOf(exit)?._tag, "ImageFailed")
          assert.isFalse(existsSync(path))
          continue
        }
        assert.isTrue(Exit.isSuccess(exit), `${at}`)
        yield* Image.verify(yield* Image.open(path))
      }
    }))

  it.effect("that says nothing is connected to nobody, and does not end the relay", () =>
    Effect.gen(function*() {
      const only = destination()
      const exit = yield* relay([source(new Uint8Array(0)), source(stream)], [only])
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(only.bytes(), stream)
    }))

  it.effect("that recovers is kept until its destination listens, and not connected once it has gone", () =>
    Effect.gen(function*() {
      const cut = source(stream.subarray(0, opening.length + 100))
      const impatient = patient(recovery)
      const second = destination()
      let attempts = 0
      const exit = yield* relay([cut, impatient, patient(recovery)], [
        destination(),
        () => {
          attempts++
          impatient.end()
        },
        () => attempts++,
        () => attempts++,
        second
      ])
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(attempts, 3)
      assert.deepStrictEqual(second.bytes(), recovery)
    }))

  it.effect("whose destination answers before the list of blocks has passed still has its requests understood", () =>
    Effect.gen(function*() {
      const path = join(directory(), "image")
      const begun = Stream.header().length + Samples.snapshot.configuration.length + Stream.openReturnPath().length +
        Stream.ping(1).length
      const from: CutLink = new CutLink(Infinity, true, (one) => {
        // It goes on once it has the answer, and ends when it hears that all is well.
        if (one.length === ReturnPath.pong(1).length) one.say(stream.subarray(begun))
        else if (Buffer.compare(one.bytes().subarray(-8), ReturnPath.shut(0)) === 0) one.end()
      })
      from.say(stream.subarray(0, begun))
      let answered = false
      const to: CutLink = new CutLink(Infinity, true, (one) => {
        if (!answered) one.say(ReturnPath.pong(1))
        answered = true
        if (one.length < stream.length) return
        one.say(ReturnPath.reqPages(PAGE, PAGE, "pc.ram"))
        one.say(ReturnPath.shut(0))
      })
      const exit = yield* relay([from], [to], path)
      assert.strictEqual(reasonOf(exit), undefined)
      if (Exit.isSuccess(exit)) assert.strictEqual(exit.value.progress.requests, 1)
    }))

  it("whose channel of requested pages is there before the list of blocks has passed has its pages understood", () => {
    const tap = RelayTap.make(undefined)
    const main = tap.forward("main")
    const urgent = tap.forward("urgent")
    main.push(opening)
    urgent.push(pages)
    assert.isUndefined(tap.broken())
    assert.strictEqual(tap.progress().received, 3)
  })

  it.effect(
    "whose stream is not understood is passed on unchanged, and costs the image alone",
    () =>
      Effect.gen(function*() {
        // The first byte tells a migration from a recovery.
        for (let bit = 8; bit < opening.length * 8; bit += 37) {
          const changed = stream.slice()
          changed[bit >> 3]! ^= 1 << (bit & 7)
          const path = join(directory(), "image")
          const only = destination()
          const exit = yield* relay([source(changed)], [only, destination()], path)
          const reason = reasonOf(exit)
          assert.deepStrictEqual(only.bytes(), changed, `${bit}`)
          if (reason === undefined) assert.isTrue(existsSync(path), `${bit}`)
          else {
            assert.include(["ImageFailed", "LinkFailed"], reason._tag, `${bit}`)
            assert.isFalse(existsSync(path), `${bit}`)
          }
        }
      }),
    60_000
  )
})
