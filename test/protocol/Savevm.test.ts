import { assert, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import * as BitmapList from "../../src/protocol/umem/BitmapList.ts"
import * as Savevm from "../../src/protocol/umem/Savevm.ts"
import { be32, complaint, cut, decodeAll, hex, join, random, take } from "./Streams.ts"
import * as Vectors from "./Vectors.ts"

const dev0 = hex("de ad be ef")
const devices = new Map([["dev0", 4]])
const blocks = [Vectors.pcRam]
const decoder = (more: Savevm.DecoderOptions = {}) => Savevm.decoder({ blocks, devices, ...more })

const block = { sectionId: 1, name: "block", instance: 0, version: 1 }
const ram = { sectionId: 2, name: "ram", instance: 0, version: 4 }
const device = { sectionId: 3, name: "dev0", instance: 0, version: 1 }
const guest = { sectionId: 4, name: "guest", instance: 0, version: 1 }

const messages: ReadonlyArray<Savevm.SavevmMessage> = [
  { _tag: "Header", version: 3 },
  { _tag: "Section", kind: "start", ...block },
  { _tag: "Block" },
  { _tag: "Section", kind: "start", ...ram },
  { _tag: "Ram", record: { _tag: "MemSize", total: Vectors.pcRam.length, blocks } },
  { _tag: "Ram", record: { _tag: "Eos" } },
  { _tag: "Section", kind: "part", ...block },
  { _tag: "Block" },
  { _tag: "Section", kind: "part", ...ram },
  { _tag: "Ram", record: { _tag: "Eos" } },
  { _tag: "Section", kind: "end", ...block },
  { _tag: "Block" },
  { _tag: "Section", kind: "end", ...ram },
  { _tag: "Ram", record: { _tag: "Eos" } },
  { _tag: "Section", kind: "full", ...device },
  { _tag: "Device", name: "dev0", instance: 0, version: 1, data: dev0 },
  { _tag: "Eof" }
]

describe("savevm, golden vectors", () => {
  it("the whole example is what the encoder gives", () => {
    const bytes = Savevm.concat([
      Savevm.header(),
      Savevm.start(block),
      Savevm.blockEnd(),
      Savevm.start(ram),
      Savevm.ramSizes(blocks),
      Savevm.part(1),
      Savevm.blockEnd(),
      Savevm.part(2),
      Savevm.ramEnd(),
      Savevm.end(1),
      Savevm.blockEnd(),
      Savevm.end(2),
      Savevm.ramEnd(),
      Savevm.full(device),
      dev0,
      Savevm.eof()
    ])
    assert.deepStrictEqual(bytes, Vectors.savevm)
    assert.strictEqual(bytes.length, 158)
    assert.strictEqual(createHash("sha256").update(bytes).digest("hex"), Vectors.savevmSha256)
  })
  it("the whole example decodes message by message", () => {
    const decoded = decodeAll(decoder(), Vectors.savevm)
    assert.deepStrictEqual(decoded.messages, messages)
    assert.deepStrictEqual(decoded.offsets.slice(0, 6), [0, 8, 27, 35, 52, 75])
    assert.strictEqual(decoded.last._tag, "End")
  })
  it("vectors 17, 18 and 19 are what the encoder gives", () => {
    assert.deepStrictEqual(Savevm.header(), Vectors.header)
    assert.deepStrictEqual(join(Savevm.start(ram), Savevm.ramSizes(blocks)), Vectors.startRam)
    assert.deepStrictEqual(join(Savevm.part(2), Savevm.ramEnd()), Vectors.partRam)
    assert.deepStrictEqual(join(Savevm.end(2), Savevm.ramEnd()), Vectors.endRam)
  })
  for (
    const [title, before, bytes] of [
      ["17", new Uint8Array(0), Vectors.header],
      ["18", Vectors.header, Vectors.startRam],
      ["19 (PART)", join(Vectors.header, Vectors.startRam), Vectors.partRam],
      ["19 (END)", join(Vectors.header, Vectors.startRam), Vectors.endRam]
    ] as const
  ) {
    it(`vector ${title} cut at any byte is incomplete, and an error only at the end of the input`, () => {
      for (let length = 1; length < bytes.length; length++) {
        const cutOff = decoder()
        cutOff.push(join(before, bytes.subarray(0, length)))
        assert.strictEqual(take(cutOff).last._tag, "NeedMore")
        cutOff.finish()
        const { last } = take(cutOff)
        assert.isTrue(last._tag === "Malformed" && last.truncated, `cut after ${length} bytes`)
      }
      assert.strictEqual(decodeAll(decoder(), before, bytes).last._tag, "End")
    })
  }
  it("vector 29 encodes and decodes, and anything else is no such marker", () => {
    assert.deepStrictEqual(Savevm.postcopyInit({ precopy: true }), Vectors.postcopyInit)
    assert.deepStrictEqual(Savevm.decodePostcopyInit(Vectors.postcopyInit), { precopy: true })
    assert.deepStrictEqual(Savevm.decodePostcopyInit(Savevm.postcopyInit({ precopy: false })), { precopy: false })
    for (let length = 0; length < Vectors.postcopyInit.length; length++) {
      assert.isUndefined(Savevm.decodePostcopyInit(Vectors.postcopyInit.subarray(0, length)))
    }
    assert.isUndefined(Savevm.decodePostcopyInit(hex("10 00 00 00 00 08 00 00 00 00 00 00 00 02")))
  })
  it("vector 34 encodes and decodes, and every cut of it is incomplete", () => {
    const terminator = BitmapList.terminator()
    assert.deepStrictEqual(terminator, new Uint8Array(25))
    assert.strictEqual(BitmapList.decode(terminator, true)._tag, "Message")
    for (let length = 1; length < 25; length++) {
      assert.strictEqual(BitmapList.decode(terminator.subarray(0, length), false)._tag, "NeedMore")
      const last = BitmapList.decode(terminator.subarray(0, length), true)
      assert.isTrue(last._tag === "Malformed" && last.truncated)
    }
    assert.strictEqual(BitmapList.decode(new Uint8Array(0), true)._tag, "End")
    for (let at = 0; at < 25; at++) {
      const wrong = BitmapList.decode(terminator.with(at, 1), false)
      assert.isTrue(wrong._tag === "Malformed" && !wrong.truncated && wrong.offset === at)
    }
  })
})

describe("savevm decoder", () => {
  const refused = (title: string, offset: number, ...parts: ReadonlyArray<Uint8Array>) =>
    it(title, () => {
      const found = complaint(decoder({ maxGuestState: 1000 }), join(...parts))
      assert.isDefined(found, "the last byte given is wrong, so it must be refused without waiting for more")
      assert.isFalse(found.truncated)
      assert.strictEqual(found.offset, offset)
    })
  const header = Vectors.header
  const begun = join(header, Vectors.startRam)

  refused("a wrong magic is refused at its first wrong byte", 0, hex("51 45 57"))
  refused("what is no savevm stream at all is refused by its first byte", 0, hex("47"))
  refused("version 2 is refused", 4, hex("51 45 56 4d 00 00 00 02"))
  refused("version 4 is refused", 4, hex("51 45 56 4d 00 00 00 04"))
  refused("an unknown section type is refused by its byte", 8, header, hex("05"))
  refused("the marker of later dialects is refused", 8, header, hex("10"))
  refused(
    "an unknown section is refused as soon as its name is there",
    14,
    header,
    hex("04"),
    be32(9),
    hex("05", "timer")
  )
  refused("a section without a name is refused", 13, header, hex("04"), be32(9), hex("00"))
  refused("another instance of ram is refused", 17, header, hex("01"), be32(2), hex("03", "ram"), be32(1))
  refused("ram of version 3 is refused", 21, header, hex("01"), be32(2), hex("03", "ram"), be32(0), be32(3))
  refused(
    "ram of version 5, newer than ours, is refused",
    21,
    header,
    hex("01"),
    be32(2),
    hex("03", "ram"),
    be32(0),
    be32(5)
  )
  refused(
    "block of version 2, newer than ours, is refused",
    23,
    header,
    hex("01"),
    be32(1),
    hex("05", "block"),
    be32(0),
    be32(2)
  )
  refused(
    "guest of version 2, newer than ours, is refused",
    23,
    header,
    hex("04"),
    be32(1),
    hex("05", "guest"),
    be32(0),
    be32(2)
  )
  refused("a live section that comes as FULL is refused", 14, header, hex("04"), be32(2), hex("03", "ram"))
  refused("a device that comes as START is refused", 14, header, hex("01"), be32(3), hex("04", "dev0"))
  refused("PART of an unknown section is refused by its id", 9, header, hex("02"), be32(2))
  refused("END of an unknown section is refused by its id", begun.length + 1, begun, hex("03"), be32(3))
  refused("PART of a section that has ended is refused", begun.length + 14, begun, Vectors.endRam, hex("02"), be32(2))
  refused("PART of a device is refused", 31, header, Savevm.full(device), dev0, hex("02"), be32(3))
  refused("a section id that is used twice is refused", begun.length + 1, begun, hex("04"), be32(2))
  refused(
    "a section that comes twice is refused",
    begun.length + 9,
    begun,
    hex("01"),
    be32(7),
    hex("03", "ram"),
    be32(0)
  )
  refused(
    "a page in a RAM section is refused by its word",
    25,
    header,
    Savevm.start(ram),
    hex("00 00 00 00 00 00 00 08")
  )
  refused(
    "disk contents in a block section are refused",
    27,
    header,
    Savevm.start(block),
    hex("00 00 00 00 00 00 00 01")
  )
  refused("device state above its bound is refused by its length", 27, header, Savevm.full(guest), be32(1001))
  refused("device state of 4 GiB is refused by its length", 27, header, Savevm.full(guest), be32(0xffffffff))
  refused(
    "a block list of another guest is refused by its length",
    40,
    header,
    Savevm.start(ram),
    Savevm.ramSizes([{ idstr: "pc.ram", length: 2 ** 20 }]).subarray(0, 23)
  )

  it("the state of a guest comes back whole, and may be empty", () => {
    for (const length of [0, 1, 1000]) {
      const state = Uint8Array.from({ length }, (_, i) => i)
      const { last, messages } = decodeAll(
        decoder({ maxGuestState: 1000 }),
        Savevm.header(),
        Savevm.full(guest),
        Savevm.guestState(state)
      )
      assert.strictEqual(last._tag, "End")
      assert.deepStrictEqual(messages.at(-1), { _tag: "Device", name: "guest", instance: 0, version: 1, data: state })
    }
  })
  it("B24: what was read beyond the switchover stays for the post-copy phase", () => {
    const page = join(hex("00 00 00 00 00 00 00 08 06", "pc.ram"), new Uint8Array(100))
    for (const at of [157, 158, 160, 258]) {
      const bytes = join(Vectors.savevm, page)
      const reader = decoder()
      reader.push(bytes.subarray(0, at))
      take(reader)
      reader.push(bytes.subarray(at))
      assert.strictEqual(take(reader).last._tag, "End")
      assert.strictEqual(reader.next()._tag, "End")
      assert.deepStrictEqual(reader.remainder(), page)
      assert.strictEqual(reader.remainder().length, 0)
    }
  })
  it("the end of the input inside a section is an error although every message so far was whole", () => {
    const { last } = decodeAll(decoder(), Savevm.header(), Savevm.start(ram))
    assert.isTrue(last._tag === "Malformed" && last.truncated)
  })
  it("the end of the input before the switchover is an end without an EOF message", () => {
    const { last, messages } = decodeAll(decoder(), begun)
    assert.strictEqual(last._tag, "End")
    assert.notInclude(messages.map(({ _tag }) => _tag), "Eof")
  })
  it("several instances of a device are devices of their own", () => {
    const second = { ...device, sectionId: 4, instance: 1, version: 7 }
    const { last, messages } = decodeAll(
      decoder(),
      Savevm.header(),
      Savevm.full(device),
      dev0,
      Savevm.full(second),
      dev0
    )
    assert.strictEqual(last._tag, "End")
    assert.deepStrictEqual(messages.at(-1), { _tag: "Device", name: "dev0", instance: 1, version: 7, data: dev0 })
  })
  it("in pieces of any size the stream gives the same messages at the same offsets", () => {
    const next = random(21)
    const bytes = join(
      Vectors.savevm.subarray(0, 157),
      Savevm.full(guest),
      Savevm.guestState(new Uint8Array(5000).map(() => next() * 256)),
      Savevm.eof()
    )
    const whole = decodeAll(decoder(), bytes)
    assert.strictEqual(whole.messages.at(-1)?._tag, "Eof")
    for (const most of [1, 2, 5, 50, 900]) {
      assert.deepStrictEqual(decodeAll(decoder(), ...cut(bytes, next, most)), whole)
    }
  })
  it("the example cut at any byte and then ended never gives the switchover", () => {
    for (let length = 0; length < 158; length++) {
      const { last, messages } = decodeAll(decoder(), Vectors.savevm.subarray(0, length))
      assert.notInclude(messages.map(({ _tag }) => _tag), "Eof")
      assert.isTrue(last._tag === "End" || (last._tag === "Malformed" && last.truncated))
    }
  })
  it("one changed byte anywhere never throws", () => {
    for (let at = 0; at < 158; at++) {
      for (const byte of [0x00, 0x05, 0xff]) {
        assert.include(["End", "Malformed"], decodeAll(decoder(), Vectors.savevm.with(at, byte)).last._tag)
      }
    }
  })
})
