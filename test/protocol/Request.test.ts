import { assert, describe, it } from "@effect/vitest"
import { onTestFinished, vi } from "vitest"
import { ReceiveBuffer } from "../../src/protocol/ReceiveBuffer.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import { be32, be64, complaint, cut, decodeAll, hex, join, random, take } from "./Streams.ts"
import * as Vectors from "./Vectors.ts"

const blocks = [{ idstr: "pc.ram", length: 0x4000 }, { idstr: "vga.vram", length: 0x2000 }, {
  idstr: "pc.ram2",
  length: 0x8000
}]
const decoder = () => Request.decoder({ blocks })
const lenient = () => Request.decoder()
const named = Request.encode({ cmd: 1, idstr: "pc.ram", pages: [0] })
const numbers = (n: number, from = 0) => Array.from({ length: n }, (_, i) => from + i)

describe("request channel, golden vectors", () => {
  for (const { bytes, continues, number, request } of Vectors.requests) {
    it(`vector ${number} decodes to its message`, () => {
      const before = continues === true ? [named] : []
      const { last, messages } = decodeAll(Request.decoder({ blocks: [Vectors.pcRam] }), ...before, bytes)
      assert.deepStrictEqual(messages.at(-1), request)
      assert.strictEqual(last._tag, "End")
    })
    it(`vector ${number} is what its message encodes to`, () => {
      const raw = "pages" in request
        ? { cmd: request.cmd, pages: request.pages, ...(continues !== true && { idstr: request.idstr }) }
        : { cmd: request.cmd }
      assert.deepStrictEqual(Request.encode(raw), bytes)
    })
    it(`vector ${number} cut at any byte is incomplete, and an error only at the end of the input`, () => {
      for (let length = 1; length < bytes.length; length++) {
        const cutOff = lenient()
        if (continues === true) cutOff.push(named)
        cutOff.push(bytes.subarray(0, length))
        assert.strictEqual(take(cutOff).last._tag, "NeedMore")
        cutOff.finish()
        const { last } = take(cutOff)
        assert.isTrue(last._tag === "Malformed" && last.truncated, `cut after ${length} bytes`)
        assert.strictEqual(last._tag === "Malformed" && last.offset, continues === true ? named.length : 0)
        assert.strictEqual(cutOff.next(), last)
      }
    })
  }
})

describe("request encoder", () => {
  it("faults in four turns name the block whenever it changes", () => {
    const encoder = Request.encoder()
    const sent = join(
      encoder.onDemand("pc.ram", [2]),
      encoder.onDemand("pc.ram", [3]),
      encoder.onDemand("vga.vram", [0]),
      encoder.onDemand("pc.ram", [0])
    )
    const { messages } = decodeAll(decoder(), sent)
    assert.deepStrictEqual(
      messages.map((message) => "pages" in message && [message.cmd, message.idstr, ...message.pages]),
      [[1, "pc.ram", 2], [2, "pc.ram", 3], [1, "vga.vram", 0], [1, "pc.ram", 0]]
    )
  })
  it("on-demand and background share one context", () => {
    const encoder = Request.encoder()
    assert.strictEqual(encoder.onDemand("pc.ram", [0])[0], 1)
    assert.strictEqual(encoder.background("pc.ram", [1])[0], 4)
    assert.strictEqual(encoder.background("vga.vram", [1])[0], 3)
    assert.strictEqual(encoder.onDemand("vga.vram", [0])[0], 2)
  })
  it("a removal names its block and leaves the context as it was", () => {
    const encoder = Request.encoder()
    encoder.onDemand("pc.ram", [0])
    assert.deepStrictEqual(encoder.remove("pc.ram", [3]), Request.encode({ cmd: 5, idstr: "pc.ram", pages: [3] }))
    assert.deepStrictEqual(encoder.remove("vga.vram", [1]), Request.encode({ cmd: 5, idstr: "vga.vram", pages: [1] }))
    assert.strictEqual(encoder.onDemand("pc.ram", [1])[0], 2)
  })
  it("B45: INIT and EOC are their one byte, whatever was said before them", () => {
    const requests = Request.encoder()
    requests.onDemand("pc.ram", numbers(5000))
    requests.remove("pc.ram", numbers(3))
    assert.deepStrictEqual([requests.eoc(), requests.init()], [hex("06"), hex("00")])
    assert.deepStrictEqual(requests.onDemand("pc.ram", [1]), join(hex("02 00 00 00 01"), be64(1)))
  })
  it("B35: a request for no pages is not sent and changes no context", () => {
    const encoder = Request.encoder()
    for (const kind of ["onDemand", "background", "remove"] as const) {
      assert.strictEqual(encoder[kind]("pc.ram", []).length, 0)
    }
    assert.strictEqual(encoder.size("onDemand", "pc.ram", 0), 0)
    assert.strictEqual(encoder.onDemand("pc.ram", [1])[0], 1)
  })
  it("B08: a message with the longest name and 4063 pages fits the window of 32768 bytes", () => {
    assert.strictEqual(Request.MAX_MESSAGE_BYTES, 32765)
    const name = "n".repeat(255)
    const first = Request.encoder().onDemand(name, numbers(4063))
    assert.strictEqual(first.length, 32765)
    const encoder = Request.encoder()
    encoder.onDemand(name, [0])
    assert.strictEqual(encoder.onDemand(name, numbers(4063)).length, 32509)
  })
  it("4064 pages become one message of 4063 and one of a single page", () => {
    for (const [kind, cmds] of [["onDemand", [1, 2]], ["background", [3, 4]], ["remove", [5, 5]]] as const) {
      const { messages } = decodeAll(lenient(), Request.encoder()[kind]("pc.ram", numbers(4064)))
      assert.deepStrictEqual(messages.map((message) => message.cmd), [...cmds])
      assert.deepStrictEqual(messages.map((message) => "pages" in message && message.pages.length), [4063, 1])
      assert.isTrue(messages.every((message) => "pages" in message && message.idstr === "pc.ram"))
    }
  })
  it("writes into a buffer as many bytes as it said, and nothing where they do not fit", () => {
    const next = random(7)
    for (let i = 0; i < 60; i++) {
      const encoder = Request.encoder()
      const twin = Request.encoder()
      if (next() < 0.5) {
        encoder.onDemand("pc.ram", [1])
        twin.onDemand("pc.ram", [1])
      }
      const kind = (["onDemand", "background", "remove"] as const)[Math.floor(next() * 3)]!
      const pages = numbers(Math.floor(next() * (i < 50 ? 20 : 9000)))
      const size = encoder.size(kind, "pc.ram", pages.length)
      const small = new Uint8Array(size + 4)
      assert.strictEqual(encoder.write(small, 5, kind, "pc.ram", pages, pages.length), size === 0 ? 0 : -1)
      assert.isTrue(small.every((byte) => byte === 0))
      const into = new Uint8Array(size + 7)
      assert.strictEqual(encoder.write(into, 3, kind, "pc.ram", pages, pages.length), size)
      assert.deepStrictEqual(into.subarray(3, 3 + size), twin[kind]("pc.ram", pages))
      assert.deepStrictEqual(encoder.onDemand("pc.ram", [9]), twin.onDemand("pc.ram", [9]))
    }
  })
  it("page indexes above 2^32 keep all their bits", () => {
    const page = 2 ** 41 + 2 ** 32 + 0xfedcba98
    const { messages } = decodeAll(lenient(), Request.encoder().onDemand("pc.ram", [page]))
    assert.deepStrictEqual(messages.map((message) => "pages" in message && [...message.pages]), [[page]])
  })
  it("a name of no bytes or of 256 cannot be encoded", () => {
    assert.throws(() => Request.encoder().onDemand("", [0]), RangeError)
    assert.throws(() => Request.encoder().onDemand("n".repeat(256), [0]), RangeError)
  })
})

describe("request decoder", () => {
  const refused = (title: string, offset: number, ...parts: ReadonlyArray<Uint8Array>) =>
    it(title, () => {
      const bytes = join(...parts)
      const found = complaint(decoder(), bytes)
      assert.isDefined(found, "the last byte given is wrong, so it must be refused without waiting for more")
      assert.isFalse(found.truncated)
      assert.strictEqual(found.offset, offset)
    })

  refused("B04: an unknown command is refused by its byte", 0, hex("07"))
  refused("a command with the high bit is refused", 0, hex("ff"))
  refused("B06: an empty name is refused by its length byte", 1, hex("01 00"))
  refused("an unknown block is refused as soon as its name is there", 2, hex("01 03", "abc"))
  refused("a name that is not UTF-8 is refused", 2, hex("01 01 ff"))
  refused("B05: 4294967295 pages are refused by their count", 8, hex("01 06", "pc.ram", "ff ff ff ff"))
  refused("B05: 4096 pages are refused by their count", 8, hex("01 06", "pc.ram", "00 00 10 00"))
  refused("B10: ON_DEMAND_CONT before any block is refused by its command", 0, hex("02"))
  refused("B10: BACKGROUND_CONT before any block is refused by its command", 0, hex("04"))
  refused("B11: the page at the end of a block is refused", 12, hex("01 06", "pc.ram", "00 00 00 01"), be64(4))
  refused(
    "B11: a page index whose byte offset would wrap is refused",
    12,
    hex("01 06", "pc.ram", "00 00 00 01"),
    be64(2n ** 52n)
  )
  refused("B12: a page index above 2^63 is refused", 12, hex("01 06", "pc.ram", "00 00 00 01"), be64(2n ** 64n - 1n))
  refused("a removal beyond its block is refused", 12, hex("05 06", "pc.ram", "00 00 00 01"), be64(4))
  refused(
    "a bad page is refused although more pages are announced",
    20,
    hex("01 06", "pc.ram", "00 00 00 63"),
    be64(0),
    be64(4)
  )
  refused("what follows an end of connection is refused", 1, hex("06 00"))
  refused(
    "a removal gives no context to continue",
    20,
    Request.encode({ cmd: 5, idstr: "pc.ram", pages: [0] }),
    hex("02")
  )

  it("B09: a name that is the beginning of another is a block of its own", () => {
    const { messages } = decodeAll(decoder(), Request.encode({ cmd: 1, idstr: "pc.ram2", pages: [5] }))
    assert.deepStrictEqual(messages.map((message) => "pages" in message && message.idstr), ["pc.ram2"])
    const sent = ["pc.ram2", "pc.ram", "pc.ram2"].map((idstr) => Request.encode({ cmd: 1, idstr, pages: [0] }))
    assert.deepStrictEqual(
      decodeAll(decoder(), ...sent).messages.map((message) => "pages" in message && message.idstr),
      [
        "pc.ram2",
        "pc.ram",
        "pc.ram2"
      ]
    )
    assert.isDefined(complaint(decoder(), sent[0]!, hex("01 03", "pc.")))
  })
  it("an empty ON_DEMAND still sets the context", () => {
    const { messages } = decodeAll(
      decoder(),
      Request.encode({ cmd: 1, idstr: "vga.vram", pages: [] }),
      Request.encode({ cmd: 2, pages: [1] })
    )
    assert.deepStrictEqual(messages[1], { _tag: "OnDemandCont", cmd: 2, idstr: "vga.vram", pages: Float64Array.of(1) })
  })
  it("a removal leaves the context as it was", () => {
    const { messages } = decodeAll(
      decoder(),
      Request.encode({ cmd: 3, idstr: "pc.ram2", pages: [7] }),
      Request.encode({ cmd: 5, idstr: "vga.vram", pages: [1] }),
      Request.encode({ cmd: 4, pages: [6] })
    )
    assert.deepStrictEqual(messages[2], { _tag: "BackgroundCont", cmd: 4, idstr: "pc.ram2", pages: Float64Array.of(6) })
  })
  it("a CONT with 4095 pages is accepted, as receivers of 2011 do", () => {
    const { last, messages } = decodeAll(lenient(), named, Request.encode({ cmd: 2, pages: numbers(4095) }))
    assert.strictEqual(last._tag, "End")
    assert.strictEqual(messages.length, 2)
  })
  it("the last page of a block is accepted, also with larger target pages", () => {
    assert.strictEqual(decodeAll(decoder(), Request.encode({ cmd: 1, idstr: "pc.ram", pages: [3] })).last._tag, "End")
    const large = { blocks, targetPageSize: 8192 }
    assert.strictEqual(
      decodeAll(Request.decoder(large), Request.encode({ cmd: 1, idstr: "pc.ram", pages: [1] })).last._tag,
      "End"
    )
    assert.isDefined(complaint(Request.decoder(large), Request.encode({ cmd: 1, idstr: "pc.ram", pages: [2] })))
  })
  it("without blocks page indexes above 2^53 are kept exactly", () => {
    const wide = 2n ** 64n - 1n
    const { messages } = decodeAll(lenient(), hex("01 01", "x", "00 00 00 02"), be64(wide), be64(3))
    const [message] = messages
    assert.deepStrictEqual(message !== undefined && "exactPages" in message && message.exactPages, [wide, 3n])
  })
  it("B01: the end of the input between two messages is an end, and stays one", () => {
    const between = decoder()
    between.push(named)
    take(between)
    assert.strictEqual(between.next()._tag, "NeedMore")
    between.finish()
    assert.strictEqual(between.next()._tag, "End")
    assert.strictEqual(between.next()._tag, "End")
  })
  it("after a malformed message the answer stays the same whatever comes", () => {
    const bad = decoder()
    bad.push(hex("07"))
    const first = bad.next()
    bad.push(named)
    bad.finish()
    assert.strictEqual(bad.next(), first)
  })
  it("B07: any stream in pieces of any size gives the same messages at the same offsets", () => {
    const next = random(11)
    for (let round = 0; round < 40; round++) {
      const encoder = Request.encoder()
      const parts: Array<Uint8Array> = []
      for (let i = 0; i < 12; i++) {
        const { idstr, length } = blocks[Math.floor(next() * blocks.length)]!
        const pages = numbers(Math.floor(next() * 6)).map(() => Math.floor(next() * length / 4096))
        const kind = (["onDemand", "background", "remove"] as const)[Math.floor(next() * 3)]!
        parts.push(next() < 0.1 ? encoder.init() : encoder[kind](idstr, pages))
      }
      parts.push(encoder.eoc())
      const bytes = join(...parts)
      const whole = decodeAll(decoder(), bytes)
      assert.strictEqual(whole.last._tag, "End")
      assert.strictEqual(whole.messages.at(-1)?._tag, "Eoc")
      for (const most of [1, 3, 40]) assert.deepStrictEqual(decodeAll(decoder(), ...cut(bytes, next, most)), whole)
    }
  })
  it("B07: a message of 4095 pages byte by byte is decoded in one pass", () => {
    const bytes = join(hex("01 06", "pc.ram", "00 00 0f ff"), ...numbers(4095).map(() => be64(3)))
    const { be64: be64Of } = ReceiveBuffer.prototype
    let numbersRead = 0
    const read = vi.spyOn(ReceiveBuffer.prototype, "be64").mockImplementation(
      function(this: ReceiveBuffer, at: number) {
        if (++numbersRead > 4095) throw new Error("a number was parsed twice")
        return be64Of.call(this, at)
      }
    )
    onTestFinished(() => read.mockRestore())
    const slow = decoder()
    let messages = 0
    for (let i = 0; i < bytes.length; i++) {
      slow.push(bytes.subarray(i, i + 1))
      if (slow.next()._tag === "Message") messages++
    }
    assert.deepStrictEqual([messages, numbersRead], [1, 4095])
  })
  it("the remainder is what no message has taken", () => {
    const reader = decoder()
    reader.push(join(named, hex("01 06 70")))
    reader.next()
    assert.deepStrictEqual(reader.remainder(), hex("01 06 70"))
  })
  it("random bytes never throw, and end in a message, an error or the end", () => {
    const next = random(3)
    for (let i = 0; i < 300; i++) {
      const bytes = Uint8Array.from(
        { length: Math.floor(next() * 64) },
        () => Math.floor(next() * (i % 2 === 0 ? 256 : 8))
      )
      const { last } = decodeAll(i % 3 === 0 ? lenient() : decoder(), ...cut(bytes, next, 5))
      assert.include(["End", "Malformed"], last._tag)
    }
  })
  it("a count is allocated for only once it was judged", () => {
    assert.isDefined(complaint(Request.decoder({ maxPages: 2 }), hex("01 01", "x"), be32(3)))
  })
})
