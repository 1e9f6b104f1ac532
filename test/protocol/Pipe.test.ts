import { assert, describe, it } from "@effect/vitest"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import { be64, complaint, cut, decodeAll, hex, join, le64, random } from "./Streams.ts"
import * as Vectors from "./Vectors.ts"

const any = () => Pipe.decoder({ from: "any" })
const numbers = (n: number) => Array.from({ length: n }, (_, i) => i)

const encode = (message: Pipe.PipeMessage): Uint8Array => {
  switch (message._tag) {
    case "Ready":
      return Pipe.ready(message.from)
    case "Quit":
      return Pipe.quit(message.from)
    case "Error":
      return Pipe.error()
    case "TriggerPageFault":
      return Pipe.triggerPageFault(message.pages)
    case "PageFaulted":
      return Pipe.pageFaulted(message.pages)
    case "PageUnmapped":
      return Pipe.pageUnmapped(message.pages)
  }
}

describe("pipes, golden vectors", () => {
  for (const { bytes, message, number } of Vectors.pipe) {
    it(`vector ${number} (${message._tag} from the ${message.from}) encodes and decodes`, () => {
      const { last, messages } = decodeAll(Pipe.decoder({ from: message.from }), bytes)
      assert.deepStrictEqual(messages, [message])
      assert.strictEqual(last._tag, "End")
      assert.deepStrictEqual(encode(message), bytes)
    })
    it(`vector ${number} (${message._tag} from the ${message.from}) is refused from the other side`, () => {
      const other = message.from === "daemon" ? "guest" : "daemon"
      assert.strictEqual(complaint(Pipe.decoder({ from: other }), bytes.subarray(0, 1))?.offset, 0)
    })
    it(`vector ${number} (${message._tag} from the ${message.from}) cut at any byte is incomplete`, () => {
      for (let length = 1; length < bytes.length; length++) {
        assert.isUndefined(complaint(any(), bytes.subarray(0, length)))
        const { last } = decodeAll(any(), bytes.subarray(0, length))
        assert.isTrue(last._tag === "Malformed" && last.truncated && last.offset === 0)
      }
    })
  }
  it("vector 25 is vector 22 on a host of the other byte order", () => {
    const { messages } = decodeAll(Pipe.decoder({ from: "any", endian: "big" }), Vectors.pipeBigEndian)
    assert.deepStrictEqual(messages, [{ _tag: "TriggerPageFault", from: "daemon", pages: Float64Array.of(5, 6) }])
    assert.deepStrictEqual(Pipe.triggerPageFault([5, 6], "big"), Vectors.pipeBigEndian)
  })
})

describe("pipe vectors in any piece", () => {
  it("vectors 25 and 27 cut at any byte are incomplete, and an error only at the end of the input", () => {
    for (const bytes of [Vectors.pipeBigEndian, hex("54 00 00 00 00 00 00 00 00")]) {
      for (let length = 1; length < bytes.length; length++) {
        const big = () => Pipe.decoder({ from: "daemon", endian: "big" })
        assert.isUndefined(complaint(big(), bytes.subarray(0, length)))
        const { last } = decodeAll(big(), bytes.subarray(0, length))
        assert.isTrue(last._tag === "Malformed" && last.truncated)
      }
    }
  })
})

describe("pipe encoder", () => {
  it("B61: long lists are split at 256 pages", () => {
    for (const encode of [Pipe.triggerPageFault, Pipe.pageFaulted, Pipe.pageUnmapped]) {
      const { messages } = decodeAll(any(), encode(numbers(600)))
      assert.deepStrictEqual(messages.map((message) => "pages" in message && message.pages.length), [256, 256, 88])
      assert.deepStrictEqual(messages.flatMap((message) => "pages" in message ? [...message.pages] : []), numbers(600))
    }
  })
  it("a list of no pages is not sent", () => {
    assert.strictEqual(Pipe.pageUnmapped([]).length, 0)
  })
  it("a full message has 2057 bytes", () => {
    assert.strictEqual(Pipe.triggerPageFault(numbers(256)).length, 2057)
  })
})

describe("pipe decoder", () => {
  const refused = (title: string, offset: number, ...parts: ReadonlyArray<Uint8Array>) =>
    it(title, () => {
      const found = complaint(any(), join(...parts))
      assert.isDefined(found, "the last byte given is wrong, so it must be refused without waiting for more")
      assert.isFalse(found.truncated)
      assert.strictEqual(found.offset, offset)
    })
  refused("an unknown byte is refused", 0, hex("58"))
  refused("B50: vector 27, a list of no pages, is refused and does not stall", 1, hex("54 00 00 00 00 00 00 00 00"))
  refused("B50: a PAGE_FAULTED of no pages is refused", 1, hex("74"), le64(0))
  refused("B50: a PAGE_UNMAPPED of no pages is refused", 1, hex("75"), le64(0))
  refused("a TRIGGER_PAGE_FAULT of 257 pages is refused by its count", 1, hex("54"), le64(257))
  refused("a PAGE_FAULTED of 257 pages is refused by its count", 1, hex("74"), le64(257))
  refused("B50: a PAGE_UNMAPPED of 4095 pages is refused by its count", 1, hex("75"), le64(4095))
  refused("B50: a count whose bytes would wrap is refused", 1, hex("75"), le64(2n ** 61n + 1n))
  refused("a count in the other byte order is refused", 1, hex("54"), be64(2))

  it("a PAGE_UNMAPPED of 4094 pages is accepted, as the window of 2011 holds it", () => {
    const { messages } = decodeAll(any(), hex("75"), le64(4094), ...numbers(4094).map(le64))
    assert.deepStrictEqual(messages, [{ _tag: "PageUnmapped", from: "guest", pages: Float64Array.from(numbers(4094)) }])
  })
  it("page numbers above 2^53 are kept exactly", () => {
    const { messages: [message] } = decodeAll(any(), hex("54"), le64(2), le64(2n ** 64n - 1n), le64(7))
    assert.deepStrictEqual(message !== undefined && "exactPages" in message && message.exactPages, [2n ** 64n - 1n, 7n])
  })
  it("any conversation in pieces of any size gives the messages that were encoded", () => {
    const next = random(17)
    for (let round = 0; round < 30; round++) {
      const sent = Array.from({ length: 10 }, () => Vectors.pipe[Math.floor(next() * Vectors.pipe.length)]!)
      const bytes = join(...sent.map(({ bytes }) => bytes))
      const { messages } = decodeAll(any(), ...cut(bytes, next, 1 + round))
      assert.deepStrictEqual(messages, sent.map(({ message }) => message))
    }
  })
})
