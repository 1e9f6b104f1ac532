import { assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import * as DeviceSections from "../../../src/protocol/qemu/DeviceSections.ts"
import * as Package from "../../../src/protocol/qemu/Package.ts"
import * as Stream from "../../../src/protocol/qemu/Stream.ts"
import * as StreamDecoder from "../../../src/protocol/qemu/StreamDecoder.ts"
import type { StreamItem } from "../../../src/protocol/qemu/StreamItem.ts"
import { ReceiveBuffer } from "../../../src/protocol/ReceiveBuffer.ts"
import * as RamStream from "../../../src/protocol/umem/RamStream.ts"
import { be32, be64, complaint, cut, decodeAll, hex, join, random, take } from "../Streams.ts"
import * as Samples from "./Samples.ts"

const { PAGE, blocks } = Samples
const tags = (items: ReadonlyArray<StreamItem>) => items.map(({ _tag }) => _tag)
const decode = (bytes: Uint8Array) => decodeAll(StreamDecoder.decoder(), bytes)
const shapes = { precopy: Samples.precopy, postcopy: Samples.postcopy, recovery: Samples.recovery }
const decoderOf = (shape: keyof typeof shapes) => StreamDecoder.decoder(shape === "recovery" ? { resumed: blocks } : {})

/** A stream up to and including the list of blocks. */
const before = join(Stream.header(), Samples.snapshot.configuration)
const started = join(
  before,
  Stream.sectionStart({ id: 2, idstr: "ram", instance: 0, version: 4 }),
  Stream.memSize(blocks),
  RamStream.eos(),
  Stream.footer(2),
  Stream.sectionPart(2)
)

describe("the forward stream, bytes of real captures", () => {
  it("the opening is what a real QEMU accepted, byte for byte", () => {
    const opening = Stream.opening({ ...Samples.snapshot, blocks: Samples.bare })
    assert.deepStrictEqual(opening.subarray(0, Samples.acceptedOpening.length), Samples.acceptedOpening)
  })
  it("a bare machine's block list", () => {
    const { messages } = decode(Samples.acceptedOpening.subarray(0, 0xe7))
    assert.deepStrictEqual(messages.at(-3), { _tag: "MemSize", total: 0x1082000, blocks: Samples.bare })
    assert.deepStrictEqual(tags(messages), [
      "Header",
      "Configuration",
      "OpenReturnPath",
      "Ping",
      "PostcopyAdvise",
      "SectionStart",
      "MemSize",
      "Eos",
      "Footer"
    ])
  })
  it("a configuration with a UUID is replayed as it came", () => {
    const { messages } = decode(join(Stream.header(), Samples.uuid, Stream.eof()))
    const configuration = messages[1]!
    assert.isTrue(configuration._tag === "Configuration")
    if (configuration._tag !== "Configuration") return
    assert.strictEqual(configuration.machine, "pc-i440fx-7.2")
    assert.deepStrictEqual(configuration.bytes, Samples.uuid)
    assert.deepStrictEqual(configuration.subsections.map(({ body, name }) => [name, body.length]), [
      ["configuration/uuid", 16]
    ])
  })
  it("capabilities and page bits in the configuration", () => {
    const subsections = join(
      hex("05 1e", "configuration/target-page-bits", "00 00 00 01 00 00 00 0c"),
      hex("05 1a", "configuration/capabilities", "00 00 00 01 00 00 00 01 0f", "x-ignore-shared")
    )
    const { messages } = decode(join(Stream.header(), Stream.configuration("none", subsections), Stream.eof()))
    const configuration = messages[1]!
    assert.deepStrictEqual(
      configuration._tag === "Configuration" && configuration.subsections.map(({ body }) => body.length),
      [4, 20]
    )
  })
  it("first page of a block, continuing page, zero page, a block switch onto a zero page", () => {
    const records = join(
      hex("00 00 00 00 00 00 00 08 06", "pc.ram"),
      Samples.pageBytes(1),
      hex("00 00 00 00 00 20 10 28"),
      Samples.pageBytes(2),
      hex("00 00 00 00 00 0c 10 22 00"),
      hex("00 00 00 00 00 00 00 02 07", "pc.bios", "00")
    )
    const { messages } = decodeAll(
      StreamDecoder.decoder({ resumed: Samples.bare }),
      join(Stream.sectionPart(2), records)
    )
    assert.deepStrictEqual(messages.slice(1), [
      { _tag: "Page", idstr: "pc.ram", address: 0, continued: false, data: Samples.pageBytes(1) },
      { _tag: "Page", idstr: "pc.ram", address: 0x201000, continued: true, data: Samples.pageBytes(2) },
      { _tag: "Zero", idstr: "pc.ram", address: 0xc1000, continued: true, byte: 0 },
      { _tag: "Zero", idstr: "pc.bios", address: 0, continued: false, byte: 0 }
    ])
  })
  it("a block of huge pages says their size, which the advice announces", () => {
    const list = [{ idstr: "mem0", length: 0x4000000, pageSize: 0x200000 }, ...Samples.bare.slice(1)]
    const stream = (advised: number) =>
      join(
        before,
        Stream.postcopyAdvise(advised),
        Stream.sectionStart({ id: 2, idstr: "ram", instance: 0, version: 4 }),
        Stream.memSize(list),
        RamStream.eos()
      )
    const bytes = stream(0x201000)
    const at = join(before, Stream.postcopyAdvise(0)).length + 17 + 8
    assert.deepStrictEqual(
      bytes.subarray(at, at + 21),
      hex("04", "mem0", "00 00 00 00 04 00 00 00", "00 00 00 00 00 20 00 00")
    )
    const { messages } = decode(bytes)
    const found = messages.find(({ _tag }) => _tag === "MemSize")
    assert.deepStrictEqual(found?._tag === "MemSize" && found.blocks, list)
    assert.match(complaint(StreamDecoder.decoder(), stream(0x1000))?.message ?? "", /a page size of 2097152 bytes/)
  })
  it("an XBZRLE delta", () => {
    const { messages } = decodeAll(
      StreamDecoder.decoder({ resumed: Samples.bare }),
      Stream.sectionPart(2),
      hex("00 00 00 00 00 00 00 02 06", "pc.ram", "00"),
      hex("00 00 00 00 00 00 80 60 01 00 09 84 02 02 0e 14 02 02 b7 04")
    )
    const record = messages.at(-1)
    assert.deepStrictEqual(record?._tag === "Xbzrle" && [record.address, record.idstr, [...record.delta]], [
      0x8000,
      "pc.ram",
      [0x84, 2, 2, 0x0e, 0x14, 2, 2, 0xb7, 4]
    ])
  })
  it("a packed page", () => {
    const packed = Uint8Array.of(1, 2, 3)
    const { messages } = decodeAll(
      StreamDecoder.decoder({ resumed: Samples.bare }),
      join(Stream.sectionPart(2), hex("00 00 00 00 00 00 11 00 06", "pc.ram"), be32(3), packed)
    )
    assert.deepStrictEqual(messages[1], {
      _tag: "CompressPage",
      idstr: "pc.ram",
      address: 0x1000,
      continued: false,
      packed
    })
  })
  it("the commands of a captured post-copy", () => {
    const { messages } = decodeAll(
      StreamDecoder.decoder({ resumed: Samples.bare }),
      hex("08 00 06 00 29 00 06", "pc.ram", "00"),
      hex("00 00 00 00 00 00 70 00 00 00 00 00 00 00 20 00 00 00 00 00 00 20 00 00 00 00 00 00 00 e0 00 00"),
      hex("08 00 02 00 04 00 00 00 02", "08 00 07 00 04 00 00 00 03 01 02 03", "08 00 0a 00 07 06", "pc.ram"),
      hex("08 00 09 00 00 08 00 08 00 00 08 00 03 00 00")
    )
    assert.deepStrictEqual(messages, [
      {
        _tag: "PostcopyRamDiscard",
        idstr: "pc.ram",
        ranges: [{ start: 0x7000, length: 0x2000 }, { start: 0x200000, length: 0xe00000 }]
      },
      { _tag: "Ping", value: 2 },
      { _tag: "Packaged", bytes: Uint8Array.of(1, 2, 3) },
      { _tag: "RecvBitmap", idstr: "pc.ram" },
      { _tag: "PostcopyResume" },
      { _tag: "EnableColo" },
      { _tag: "PostcopyAdvise" }
    ])
  })
  it("the last bytes of any post-copy stream", () => {
    assert.deepStrictEqual(
      Stream.ending(),
      hex("00 00 00 00 00 00 00 10 7e 00 00 00 02 03 00 00 00 02 00 00 00 00 00 00 00 10 7e 00 00 00 02 00")
    )
  })
  it("more than twelve ranges are several commands", () => {
    const ranges = Array.from({ length: 30 }, (_, i) => ({ start: i * 2 * PAGE, length: PAGE }))
    const { messages } = decodeAll(
      StreamDecoder.decoder({ resumed: blocks }),
      Stream.postcopyRamDiscard("pc.ram", ranges)
    )
    assert.deepStrictEqual(
      messages.map((item) => item._tag === "PostcopyRamDiscard" && item.ranges.length),
      [12, 12, 6]
    )
    assert.deepStrictEqual(messages.flatMap((item) => item._tag === "PostcopyRamDiscard" ? item.ranges : []), ranges)
  })
})

describe("the forward stream as a whole", () => {
  for (const [shape, bytes] of Object.entries(shapes) as ReadonlyArray<[keyof typeof shapes, Uint8Array]>) {
    const whole = decodeAll(decoderOf(shape), bytes)
    it(`a ${shape} stream decodes to its end`, () => {
      assert.strictEqual(whole.last._tag, "End")
      assert.strictEqual(whole.messages.filter(({ _tag }) => _tag === "Page" || _tag === "Zero").length, 10)
    })
    it(`a ${shape} stream decodes alike however it is cut`, () => {
      const next = random(shape.length)
      for (const most of [1, 7, 3000, 20_000]) {
        const { last, messages, offsets } = decodeAll(decoderOf(shape), ...cut(bytes, next, most))
        assert.strictEqual(last._tag, "End")
        assert.deepStrictEqual(offsets, whole.offsets)
        assert.deepStrictEqual(messages, whole.messages)
      }
    })
    it(`a ${shape} stream that ends at any byte is incomplete, and says where`, () => {
      const ends = whole.offsets
      for (let length = 0; length < bytes.length; length++) {
        // Page data is alike everywhere: every 997th byte of it is enough.
        if (length % 997 !== 0 && !ends.some((end) => Math.abs(end - length) < 40)) continue
        const decoder = decoderOf(shape)
        decoder.push(bytes.subarray(0, length))
        assert.strictEqual(take(decoder).last._tag, "NeedMore", `${length}`)
        decoder.finish()
        const { last } = take(decoder)
        // Behind its EOF byte a stream without a description is whole: QEMU sends none when told so.
        const withoutDescription = shape === "precopy" && bytes[length - 1] === 0 && length === ends.at(-1)
        assert.strictEqual(last._tag, withoutDescription ? "End" : "Malformed", `${length}`)
        if (last._tag === "Malformed") assert.isTrue(last.truncated)
      }
    })
    it(`a ${shape} stream with any one byte changed never throws, loops or asks for memory`, () => {
      const reserve = vi.spyOn(ReceiveBuffer.prototype, "reserve")
      const next = random(11)
      for (let round = 0; round < 400; round++) {
        const changed = bytes.slice()
        const at = Math.floor(next() * Math.min(bytes.length, 700))
        changed[at] = changed[at]! ^ (1 << Math.floor(next() * 8))
        const { last } = decodeAll(decoderOf(shape), changed)
        assert.include(["End", "Malformed"], last._tag)
      }
      assert.isTrue(reserve.mock.calls.every(([n]) => n <= bytes.length))
      reserve.mockRestore()
    })
  }
  it("random bytes never throw, and a decoder that has refused answers the same for ever", () => {
    const next = random(5)
    for (let round = 0; round < 300; round++) {
      const decoder = StreamDecoder.decoder(round % 2 === 0 ? {} : { resumed: blocks })
      const noise = Uint8Array.from({ length: 1 + next() * 300 }, () => next() * 256)
      const { last } = decodeAll(decoder, noise)
      assert.strictEqual(decoder.next(), last)
    }
  })
  it("device state and description of a precopy stream are kept as they came", () => {
    const { messages } = decode(Samples.precopy)
    const devices = messages.find((item) => item._tag === "DeviceState")
    const description = messages.find((item) => item._tag === "VmDescription")
    assert.deepStrictEqual(devices, { _tag: "DeviceState", bytes: Samples.device })
    assert.deepStrictEqual(description, { _tag: "VmDescription", text: Samples.description })
    assert.deepStrictEqual(DeviceSections.parse(Samples.device, Samples.description), [
      { idstr: "timer", instance: 0, version: 2, bytes: 24 }
    ])
  })
  it("a package gives the device state between LISTEN and RUN", () => {
    const { messages } = decode(Samples.postcopy)
    const packaged = messages.find((item) => item._tag === "Packaged")
    assert.deepStrictEqual(packaged?._tag === "Packaged" && Package.devices(packaged.bytes), Samples.device)
    assert.deepStrictEqual(
      Package.devices(join(Stream.postcopyListen(), Samples.device, Stream.postcopyRun())),
      Samples.device
    )
    assert.isUndefined(Package.devices(join(Samples.device, Stream.postcopyRun())))
    assert.isUndefined(Package.devices(new Uint8Array(0)))
  })
  it("a description that does not fit the device state is found out", () => {
    const changed = Samples.device.slice()
    changed[changed.length - 1]! ^= 1
    assert.match(String(DeviceSections.parse(changed, Samples.description)), /does not end/)
    assert.match(String(DeviceSections.parse(Samples.device.subarray(1), Samples.description)), /ends 1 bytes behind/)
    assert.match(String(DeviceSections.parse(Samples.device, hex("7b"))), /no JSON/)
    assert.match(String(DeviceSections.parse(Samples.device, new TextEncoder().encode("{}"))), /not described/)
  })
})

describe("what a hostile source may try", () => {
  const refused = (what: string, expected: RegExp, at: number, ...bytes: ReadonlyArray<Uint8Array>) =>
    it(what, () => {
      const malformed = complaint(StreamDecoder.decoder(), join(...bytes))
      assert.match(malformed?.message ?? "nothing", expected)
      assert.strictEqual(malformed?.offset, at)
    })
  const word = (value: number | bigint) => be64(value)
  const list = (...parts: ReadonlyArray<Uint8Array>) => join(before, start, ...parts)
  const start = Stream.sectionStart({ id: 2, idstr: "ram", instance: 0, version: 4 })
  const listAt = before.length + start.length

  refused("another magic", /magic/, 0, hex("51 45 56 4e"))
  refused("the obsolete version", /version 2/, 4, hex("51 45 56 4d 00 00 00 02"))
  refused("no machine", /does not name its machine/, 8, Stream.header(), hex("01"))
  refused("a machine's name of 4 GiB", /4294967295 bytes/, 9, Stream.header(), hex("07 ff ff ff ff"))
  refused(
    "a subsection nobody knows",
    /unknown subsection "x"/,
    8 + 6 + 1,
    Stream.header(),
    Stream.configuration("m", hex("05 01", "x", "00 00 00 01"))
  )
  refused("a version of ram that nobody speaks", /version 3/, before.length + 13, before, start.slice(0, -1), hex("03"))
  refused(
    "sections that cannot be kept",
    /"block"/,
    before.length + 6,
    before,
    Stream.sectionStart({ id: 3, idstr: "block", instance: 0, version: 1 })
  )
  refused("a section of its own before ram", /before the guest's memory/, before.length, before, Samples.device)
  refused("a part of nothing", /has not started/, before.length + 1, before, Stream.sectionPart(2))
  refused("a record that is none", /0x9 is unknown/, before.length, before, hex("09"))
  refused("a total of nothing", /0 bytes in all/, listAt, list(word(4)))
  refused("a total of 2^63", /bytes in all/, listAt, list(word((1n << 63n) + 4n)))
  refused(
    "a block larger than the total",
    /8192 are left/,
    listAt + 8 + 2,
    list(word(8192 + 4), hex("01", "a"), word(12288))
  )
  refused("a block of half a page", /of 2048 bytes/, listAt + 10, list(word(8192 + 4), hex("01", "a"), word(2048)))
  refused(
    "a block twice",
    /twice/,
    listAt + 19,
    list(word(8192 + 4), hex("01", "a"), word(4096), hex("01", "a"), word(4096))
  )
  refused(
    "an end before the total",
    /before its total/,
    listAt + 18,
    list(word(8196), hex("01", "a"), word(4096), word(16))
  )
  refused(
    "names behind the total",
    /behind its total/,
    listAt + 18,
    list(word(4100), hex("01", "a"), word(4096), hex("01"))
  )
  refused("pages before blocks", /before the list/, listAt, list(word(8)))
  refused("flags together", /mean nothing/, started.length, started, word(0x0a))
  refused("flags of a later version", /0x200/, started.length, started, word(0x200))
  refused("a hook", /0x80/, started.length, started, word(0x80))
  refused("a continued block without one", /before any block/, started.length, started, word(0x28))
  refused("a block nobody has", /no block "x"/, started.length + 9, started, word(8), hex("01", "x"))
  refused("an unnamed block", /name is empty/, started.length + 8, started, word(8), hex("00"))
  refused("a page behind its block", /byte 32768/, started.length, started, word(8 * PAGE + 8), hex("06", "pc.ram"))
  refused(
    "a page beyond 2^53",
    /a page at/,
    started.length,
    started,
    hex("ff ff ff ff ff ff f0 08"),
    hex("06", "pc.ram")
  )
  refused("a second list", /second list/, started.length, started, Stream.memSize(blocks))
  refused(
    "an unknown delta",
    /encoding 2/,
    started.length + 15,
    started,
    word(0x40),
    hex("06", "pc.ram", "02")
  )
  refused(
    "a delta larger than a page",
    /5000 bytes/,
    started.length + 16,
    started,
    word(0x40),
    hex("06", "pc.ram", "01 13 88")
  )
  refused(
    "a packed page of 1 GiB",
    /packed page/,
    started.length + 15,
    started,
    word(0x100),
    hex("06", "pc.ram", "40 00 00 00")
  )
  refused("an end with an offset", /carries an offset/, started.length, started, word(PAGE + 16))
  refused("no footer", /footer of section 2/, started.length + 8, started, RamStream.eos(), hex("02"))
  refused("another's footer", /footer of section 3/, started.length + 9, started, RamStream.eos(), Stream.footer(3))
  refused("an unknown command", /command 11/, before.length + 1, before, hex("08 00 0b"))
  refused("a ping of the wrong length", /5 bytes of command 2/, before.length + 3, before, hex("08 00 02 00 05"))
  refused("an advice of 8 bytes", /8 bytes of command 3/, before.length + 3, before, hex("08 00 03 00 08"))
  refused("a package of 4 GiB", /at most/, before.length + 5, before, hex("08 00 07 00 04 ff ff ff ff"))
  refused(
    "a discard of half a page",
    /whole pages/,
    before.length + 9,
    before,
    hex("08 00 06 00 14 00 01", "a", "00", "00 00 00 00 00 00 00 00 00 00 00 00 00 00 08 00")
  )
  refused(
    "a discard whose name leaves it",
    /name of 200 bytes/,
    before.length + 6,
    before,
    hex("08 00 06 00 14 00 c8"),
    new Uint8Array(20)
  )
  it("bytes behind the end", () => {
    assert.match(complaint(StreamDecoder.decoder(), Samples.precopy, hex("00"))?.message ?? "", /bytes follow/)
    assert.match(complaint(StreamDecoder.decoder(), Samples.postcopy, hex("00"))?.message ?? "", /bytes follow/)
  })
})
