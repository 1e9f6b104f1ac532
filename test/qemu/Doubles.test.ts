/**
 * What a real QEMU cannot be made to do, by doubles that speak only the wire: a source that breaks off at any byte or
 * sends what cannot be, and destinations that go away, answer a recovery wrongly, or say that they are done too early.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import * as ReturnPath from "../../src/protocol/qemu/ReturnPath.ts"
import * as StreamDecoder from "../../src/protocol/qemu/StreamDecoder.ts"
import * as Image from "../../src/qemu/Image.ts"
import * as ImageReceiver from "../../src/qemu/ImageReceiver.ts"
import * as ImageWriter from "../../src/qemu/ImageWriter.ts"
import * as QemuError from "../../src/qemu/QemuError.ts"
import * as RecoveryHandshake from "../../src/qemu/RecoveryHandshake.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import { directory } from "../cli/Postcopy.ts"
import * as Samples from "../protocol/qemu/Samples.ts"
import { join as concat } from "../protocol/Streams.ts"

const about = { qemu: null, vcpus: null, captured: "relayed", guestWas: null, capabilities: [] } as const

/** Feeds a stream to a receiver and makes it an image, if it can be one. */
const keep = (path: string, bytes: Uint8Array) =>
  Effect.gen(function*() {
    const writer = yield* ImageWriter.make(path)
    const receiver = ImageReceiver.make(writer)
    const decoder = StreamDecoder.decoder()
    decoder.push(bytes)
    yield* Effect.try({
      try: () => {
        for (let one = decoder.next(); one._tag === "Message"; one = decoder.next()) receiver.take(one.message)
        receiver.flush()
      },
      catch: (error) => new QemuError.ImageFailed({ kind: "damaged", path, detail: String(error) })
    })
    return yield* receiver.commit(about)
  }).pipe(Effect.scoped)

describe("a source that is no good", () => {
  for (const [way, stream] of [["precopy", Samples.precopy], ["postcopy", Samples.postcopy]] as const) {
    it.live(`${way}: whole, it is an image with every page as it was sent`, () =>
      Effect.gen(function*() {
        const path = join(directory(), "image")
        yield* keep(path, stream)
        const image = yield* Image.open(path)
        yield* Image.verify(image)
        assert.deepStrictEqual(image.snapshot, Samples.snapshot)
        const memory = readFileSync(join(path, "memory"))
        for (let page = 0; page < 8; page++) {
          assert.strictEqual(image.stored.test(page), page % 3 !== 0)
          if (page % 3 === 0) continue
          assert.deepStrictEqual(
            new Uint8Array(memory.subarray(page * Samples.PAGE, (page + 1) * Samples.PAGE)),
            Samples.pageBytes(page)
          )
        }
      }))

    it.live(`${way}: broken off before its devices or a page, it is no image and leaves nothing behind`, () =>
      Effect.gen(function*() {
        const home = directory()
        const whole = stream.length - (way === "precopy" ? Samples.description.length + 6 : 33)
        for (let length = 0; length < whole; length += 331) {
          const exit = yield* Effect.exit(keep(join(home, "image"), stream.subarray(0, length)))
          assert.isTrue(Exit.isFailure(exit), `${length}`)
          assert.isFalse(existsSync(join(home, "image")))
        }
        assert.deepStrictEqual(readdirSync(home), [])
      }))
  }

  it.live("any one bit changed never makes it fail other than by saying so", () =>
    Effect.gen(function*() {
      const home = directory()
      for (let bit = 0; bit < 250 * 8; bit += 13) {
        const changed = Samples.precopy.slice()
        changed[bit >> 3]! ^= 1 << (bit & 7)
        const exit = yield* Effect.exit(keep(join(home, `${bit}`), changed))
        if (Exit.isFailure(exit)) assert.isFalse(existsSync(join(home, `${bit}`)))
      }
    }))
})

describe("a destination that is no good", () => {
  const half = new Bitmap(8)
  half.set(3)
  const answers = concat(
    ReturnPath.recvBitmap("pc.ram", half),
    ReturnPath.recvBitmap("pc.bios", new Bitmap(2)),
    ReturnPath.resumeAck(),
    ReturnPath.reqPages(0, Samples.PAGE, "pc.ram")
  )
  /** The handshake with a destination that says these bytes and goes away. */
  const handshake = (said: Uint8Array) =>
    Effect.gen(function*() {
      const [here, there] = yield* LinkMemory.pair()
      there.write(said, 0, said.length)
      there.close()
      return yield* RecoveryHandshake.perform({ ...here, write: (_, __, length) => length }, Samples.blocks)
    })

  it.effect("a recovery takes the bitmaps, and keeps the requests that follow", () =>
    Effect.gen(function*() {
      const { received, remainder } = yield* handshake(answers)
      assert.deepStrictEqual(received.map(({ count, length }) => [count, length]), [[1, 8], [0, 2]])
      assert.isTrue(received[0]!.test(3))
      assert.deepStrictEqual(remainder, ReturnPath.reqPages(0, Samples.PAGE, "pc.ram"))
    }))

  it.effect("a recovery that breaks off at any byte before RESUME_ACK is a failure", () =>
    Effect.gen(function*() {
      const whole = answers.length - ReturnPath.reqPages(0, Samples.PAGE, "pc.ram").length
      for (let length = 0; length < whole; length++) {
        const error = yield* Effect.flip(handshake(answers.subarray(0, length)))
        assert.include(["LinkFailed", "MalformedInput"], error._tag, `${length}`)
      }
    }))

  it.effect("bitmaps of other blocks, twice, or an acknowledgement too early are refused", () =>
    Effect.gen(function*() {
      const wrong = [
        concat(ReturnPath.recvBitmap("pc.bios", new Bitmap(2))),
        concat(ReturnPath.recvBitmap("pc.ram", half), ReturnPath.recvBitmap("pc.ram", half)),
        concat(ReturnPath.recvBitmap("pc.ram", half), ReturnPath.resumeAck()),
        concat(ReturnPath.shut(1)),
        concat(
          ReturnPath.recvBitmap("pc.ram", half),
          ReturnPath.recvBitmap("pc.bios", new Bitmap(2)),
          ReturnPath.pong(1)
        )
      ]
      for (const said of wrong) {
        assert.strictEqual((yield* Effect.flip(handshake(said)))._tag, "MalformedInput")
      }
    }))
})

describe("an image while it is written", () => {
  it.live("is not there before it is whole, and nothing is written over", () =>
    Effect.gen(function*() {
      const home = directory()
      const path = join(home, "image")
      const scope = yield* Scope.make()
      const writer = yield* ImageWriter.make(path).pipe(Scope.provide(scope))
      writer.layout(Samples.blocks)
      assert.isFalse(existsSync(path))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(readdirSync(home), [])
      yield* keep(path, Samples.precopy)
      const error = yield* Effect.flip(Effect.scoped(ImageWriter.make(path)))
      assert.strictEqual(error.kind, "exists")
    }))
})
