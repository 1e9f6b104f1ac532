import { assert, describe, it } from "@effect/vitest"
import { Bitmap } from "../../../src/protocol/Bitmap.ts"
import * as QemuDialect from "../../../src/protocol/qemu/QemuDialect.ts"
import * as ReceivedBitmap from "../../../src/protocol/qemu/ReceivedBitmap.ts"
import * as ReturnPath from "../../../src/protocol/qemu/ReturnPath.ts"
import { be64, complaint, cut, decodeAll, hex, join, random, take } from "../Streams.ts"
import * as Samples from "./Samples.ts"

const { PAGE, blocks } = Samples
const decoder = () => ReturnPath.decoder({ blocks })
const bare = () => ReturnPath.decoder({ blocks: Samples.bare })

describe("the return path, bytes of real captures", () => {
  for (
    const [what, bytes, message] of [
      ["SHUT 0", hex("00 01 00 04 00 00 00 00"), { _tag: "Shut", status: 0 }],
      ["PONG 2", hex("00 02 00 04 00 00 00 02"), { _tag: "Pong", value: 2 }],
      [
        "REQ_PAGES_ID",
        hex("00 03 00 13 00 00 00 00 00 2b e0 00 00 00 10 00 06", "pc.ram"),
        { _tag: "ReqPages", idstr: "pc.ram", start: 0x2be000, length: PAGE, named: true }
      ],
      ["RESUME_ACK", hex("00 06 00 04 00 00 00 01"), { _tag: "ResumeAck" }]
    ] as const
  ) {
    it(what, () => {
      assert.deepStrictEqual(decodeAll(bare(), bytes).messages, [message])
    })
  }
  it("what is encoded is what was captured", () => {
    assert.deepStrictEqual(ReturnPath.shut(0), hex("00 01 00 04 00 00 00 00"))
    assert.deepStrictEqual(ReturnPath.pong(2), hex("00 02 00 04 00 00 00 02"))
    assert.deepStrictEqual(
      ReturnPath.reqPages(0x2be000, PAGE, "pc.ram"),
      hex("00 03 00 13 00 00 00 00 00 2b e0 00 00 00 10 00 06", "pc.ram")
    )
    assert.deepStrictEqual(ReturnPath.reqPages(0x67c000, PAGE), hex("00 04 00 0c 00 00 00 00 00 67 c0 00 00 00 10 00"))
    assert.deepStrictEqual(ReturnPath.resumeAck(), hex("00 06 00 04 00 00 00 01"))
  })
  it("REQ_PAGES means the block of the request before", () => {
    const { messages } = decodeAll(
      bare(),
      ReturnPath.reqPages(0, PAGE, "pc.bios"),
      ReturnPath.reqPages(0x3f000, PAGE)
    )
    assert.deepStrictEqual(messages[1], {
      _tag: "ReqPages",
      idstr: "pc.bios",
      start: 0x3f000,
      length: PAGE,
      named: false
    })
  })
  it("a page of 2 MiB is asked for whole", () => {
    const huge = [{ idstr: "mem0", length: 0x4000000, pageSize: 0x200000 }]
    const bytes = hex("00 03 00 11 00 00 00 00 00 00 00 00 00 20 00 00 04", "mem0")
    const { messages } = decodeAll(ReturnPath.decoder({ blocks: huge }), bytes)
    assert.deepStrictEqual(messages[0], { _tag: "ReqPages", idstr: "mem0", start: 0, length: 0x200000, named: true })
    assert.match(
      complaint(ReturnPath.decoder({ blocks: huge }), ReturnPath.reqPages(PAGE, 0x200000, "mem0"))?.message ?? "",
      /no page of 2097152 bytes begins there/
    )
    const dialect = QemuDialect.make({ blocks: huge }).requests({ blocks: huge, targetPageSize: PAGE })
    dialect.push(bytes)
    const outcome = dialect.next()
    assert.isTrue(outcome._tag === "Message" && outcome.message._tag === "OnDemand")
    if (outcome._tag !== "Message" || outcome.message._tag !== "OnDemand") return
    assert.deepStrictEqual([outcome.message.pages.length, outcome.message.pages[0], outcome.message.pages[511]], [
      512,
      0,
      511
    ])
  })
})

describe("the received bitmap", () => {
  it("has the sizes that were seen", () => {
    assert.deepStrictEqual([4096, 64, 1, 65, 32].map(ReceivedBitmap.bytesFor), [0x200, 8, 8, 16, 8])
  })
  it("bit p is in byte p >> 3 under 1 << (p & 7)", () => {
    const bitmap = new Bitmap(70)
    for (const page of [0, 9, 69]) bitmap.set(page)
    assert.deepStrictEqual(ReceivedBitmap.encode(bitmap), hex("01 02 00 00 00 00 00 00 20 00 00 00 00 00 00 00"))
  })
  it("L2: comes out as it went in, every bit of every word, whatever its length", () => {
    const next = random(8)
    for (let round = 0; round < 100; round++) {
      const bitmap = new Bitmap(1 + Math.floor(next() * 300))
      for (let page = 0; page < bitmap.length; page++) if (next() < 0.4) bitmap.set(page)
      const decoded = ReceivedBitmap.decode(ReceivedBitmap.encode(bitmap), bitmap.length)
      assert.deepStrictEqual([...decoded.words], [...bitmap.words])
      assert.strictEqual(decoded.count, bitmap.count)
    }
  })
  it("padding says nothing", () => {
    assert.strictEqual(ReceivedBitmap.decode(new Uint8Array(8).fill(255), 3).count, 3)
  })
})

describe("the return path as a whole", () => {
  const whole = decodeAll(decoder(), Samples.replies)
  it("decodes to its end, however it is cut", () => {
    assert.strictEqual(whole.last._tag, "End")
    assert.strictEqual(whole.messages.length, 6)
    for (const most of [1, 5, 30]) {
      assert.deepStrictEqual(decodeAll(decoder(), ...cut(Samples.replies, random(most), most)).messages, whole.messages)
    }
  })
  it("that ends at any byte inside a message is incomplete", () => {
    for (let length = 0; length <= Samples.replies.length; length++) {
      const cutOff = decoder()
      cutOff.push(Samples.replies.subarray(0, length))
      assert.strictEqual(take(cutOff).last._tag, "NeedMore")
      cutOff.finish()
      const { last } = take(cutOff)
      const boundary = length === Samples.replies.length || whole.offsets.includes(length)
      assert.strictEqual(last._tag, boundary ? "End" : "Malformed", `${length}`)
    }
  })
  it("never throws on noise", () => {
    const next = random(21)
    for (let round = 0; round < 500; round++) {
      const changed = Samples.replies.slice()
      for (let i = 0; i < 1 + round % 3; i++) changed[Math.floor(next() * changed.length)] = next() * 256
      const noisy = decoder()
      const { last } = decodeAll(noisy, changed)
      assert.strictEqual(noisy.next(), last)
    }
  })
})

describe("what a hostile destination may try", () => {
  const refused = (what: string, expected: RegExp, at: number, ...bytes: ReadonlyArray<Uint8Array>) =>
    it(what, () => {
      const malformed = complaint(decoder(), join(...bytes))
      assert.match(malformed?.message ?? "nothing", expected)
      assert.strictEqual(malformed?.offset, at)
    })
  refused("an unknown message", /message 7/, 0, hex("00 07"))
  refused("a pong of the wrong length", /5 bytes/, 2, hex("00 02 00 05"))
  refused("a message of 64 KiB", /65535 bytes/, 2, hex("00 03 ff ff"))
  refused("a block nobody has", /no block "x"/, 17, ReturnPath.reqPages(0, PAGE, "x"))
  refused(
    "a name that does not fill its message",
    /does not fill/,
    16,
    hex("00 03 00 13"),
    new Uint8Array(12),
    hex("05", "pc.ram")
  )
  refused("a continued block without one", /before any block/, 0, ReturnPath.reqPages(0, PAGE))
  refused("a page behind its block", /at byte 32768/, 4, ReturnPath.reqPages(8 * PAGE, PAGE, "pc.ram"))
  refused(
    "a page at 2^64 - 4096",
    /at byte 18446744073709547520/,
    4,
    hex("00 03 00 13"),
    be64(2n ** 64n - 4096n),
    hex("00 00 10 00 06", "pc.ram")
  )
  refused("half a page", /for 2048 bytes/, 12, ReturnPath.reqPages(0, 2048, "pc.ram"))
  refused("no page", /for 0 bytes/, 12, ReturnPath.reqPages(0, 0, "pc.ram"))
  refused("more than the block", /for 12288 bytes/, 12, ReturnPath.reqPages(6 * PAGE, 3 * PAGE, "pc.ram"))
  refused("another acknowledgement", /carries 2/, 4, hex("00 06 00 04 00 00 00 02"))
  refused("a bitmap of another size", /16 bytes for block pc.ram/, 11, hex("00 05 00 07 06", "pc.ram"), be64(16))
  refused("a bitmap of 2^64 bytes", /8 are expected/, 11, hex("00 05 00 07 06", "pc.ram"), be64(2n ** 64n - 1n))
  refused("a bitmap without its end", /end mark/, 27, hex("00 05 00 07 06", "pc.ram"), be64(8), new Uint8Array(16))
  refused("words behind the last", /bytes follow/, 8, ReturnPath.shut(0), hex("00"))
})

describe("QEMU's dialect for the actors", () => {
  const requests = (onPong?: (value: number) => void) =>
    QemuDialect.make({ blocks, ...(onPong && { onPong }) }).requests({ blocks, targetPageSize: PAGE })
  it("turns requests into pages, pongs into signs of life, and the end into an end of connection", () => {
    const pongs: Array<number> = []
    const { messages } = decodeAll(
      requests((value) => pongs.push(value)),
      join(ReturnPath.pong(3), ReturnPath.reqPages(2 * PAGE, PAGE, "pc.ram"), ReturnPath.shut(0))
    )
    assert.deepStrictEqual(messages, [
      { _tag: "Init" },
      { _tag: "OnDemand", idstr: "pc.ram", pages: Float64Array.of(2) },
      { _tag: "Eoc" }
    ])
    assert.deepStrictEqual(pongs, [3])
  })
  it("a status other than 0 is the destination's failure", () => {
    const { messages } = decodeAll(requests(), ReturnPath.shut(1))
    assert.strictEqual(messages[0]?._tag, "Failed")
  })
  it("messages of a recovery are refused outside one", () => {
    assert.match(complaint(requests(), ReturnPath.resumeAck())?.message ?? "", /outside a recovery/)
  })
  it("only a zero page travels as one byte", () => {
    const encoder = QemuDialect.make({ blocks }).encoder({ targetPageSize: PAGE })
    assert.deepStrictEqual([0, 1, 255].map(encoder.fills), [true, false, false])
  })
})
