import { assert, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import { vi } from "vitest"
import { ReceiveBuffer } from "../../src/protocol/ReceiveBuffer.ts"
import { RamReader, Read } from "../../src/protocol/umem/RamReader.ts"
import * as RamStream from "../../src/protocol/umem/RamStream.ts"
import { be64, complaint, cut, decodeAll, hex, join, random, take } from "./Streams.ts"
import * as Vectors from "./Vectors.ts"

const blocks = [{ idstr: "pc.ram", length: 0x4000 }, { idstr: "vga.vram", length: 0x2000 }]
const page = Vectors.countingPage
const postcopy = (more: Partial<RamStream.DecoderOptions> = {}) =>
  RamStream.decoder({ blocks, phase: "postcopy", ...more })
const any = () => RamStream.decoder({ phase: "any" })
const section = (more: Partial<RamStream.DecoderOptions> = {}) =>
  RamStream.decoder({ blocks, phase: "section", ...more })
const pcRam = hex("06", "pc.ram")

/** The bytes of a record as an encoder gives them. */
const encoded = (encoder: RamStream.Encoder, record: RamStream.RamRecord): Uint8Array => {
  const out = new Uint8Array(encoder.maxRecordBytes)
  switch (record._tag) {
    case "Page": {
      const header = encoder.page(out, 0, record.idstr, record.address)
      out.set(record.data, header)
      return out.subarray(0, header + record.data.length)
    }
    case "Fill":
      return out.subarray(0, encoder.fill(out, 0, record.idstr, record.address, record.byte))
    case "MemSize":
      return RamStream.memSize(record.blocks)
    case "Eos":
      return out.subarray(0, encoder.eos(out, 0))
  }
}

describe("RAM stream, golden vectors", () => {
  for (const { bytes, number, record } of Vectors.ram) {
    it(`vector ${number} decodes to its record`, () => {
      const { last, messages } = decodeAll(any(), bytes)
      assert.deepStrictEqual(messages, [record])
      assert.strictEqual(last._tag, "End")
    })
    it(`vector ${number} is what its record encodes to`, () => {
      assert.deepStrictEqual(encoded(RamStream.encoder(), record), bytes)
    })
    it(`vector ${number} cut at any byte is incomplete, and an error only at the end of the input`, () => {
      for (let length = 1; length < bytes.length; length++) {
        const decoder = any()
        decoder.push(bytes.subarray(0, length))
        assert.strictEqual(decoder.next()._tag, "NeedMore")
        decoder.finish()
        const last = decoder.next()
        assert.isTrue(last._tag === "Malformed" && last.truncated && last.offset === 0, `cut after ${length} bytes`)
        assert.strictEqual(decoder.next(), last)
      }
    })
  }
  it("vector 11 has the hash it was published with", () => {
    assert.strictEqual(createHash("sha256").update(Vectors.ram[0]!.bytes).digest("hex"), Vectors.page11Sha256)
  })
})

describe("RAM stream encoder", () => {
  it("names the block of a record only when it differs from the last one, for pages and fills alike", () => {
    const encoder = RamStream.encoder()
    const out = new Uint8Array(600)
    assert.strictEqual(encoder.page(out, 0, "pc.ram", 0x1000), 15)
    assert.deepStrictEqual(out.subarray(0, 15), join(be64(0x1008), pcRam))
    assert.strictEqual(encoder.fill(out, 0, "pc.ram", 0x2000, 0xaa), 9)
    assert.deepStrictEqual(out.subarray(0, 9), join(be64(0x2022), hex("aa")))
    assert.strictEqual(encoder.page(out, 0, "pc.ram", 0x3000), 8)
    assert.deepStrictEqual(out.subarray(0, 8), be64(0x3028))
    assert.strictEqual(encoder.fill(out, 0, "vga.vram", 0, 0), 18)
    assert.deepStrictEqual(out.subarray(0, 18), join(be64(0x02), hex("08", "vga.vram", "00")))
  })
  it("forgets the last block when it is reset", () => {
    const encoder = RamStream.encoder()
    const out = new Uint8Array(600)
    encoder.page(out, 0, "pc.ram", 0)
    encoder.reset()
    assert.strictEqual(encoder.page(out, 0, "pc.ram", 0), 15)
  })
  it("keeps all bits of an offset above 2^32", () => {
    const out = new Uint8Array(600)
    RamStream.encoder().page(out, 0, "x", 2 ** 45 + 2 ** 31 + 0x1000)
    assert.deepStrictEqual(out.subarray(0, 8), be64(2n ** 45n + 2n ** 31n + 0x1008n))
  })
  it("no record is larger than it said, even with the longest name", () => {
    const encoder = RamStream.encoder({ targetPageSize: 8192 })
    const out = new Uint8Array(encoder.maxRecordBytes)
    const name = "n".repeat(255)
    assert.isAtMost(encoder.page(out, 0, name, 0) + 8192, encoder.maxRecordBytes)
    encoder.reset()
    assert.isAtMost(encoder.fill(out, 0, name, 0, 1), RamStream.MAX_RECORD_HEADER)
  })
  it("lists the blocks with their total", () => {
    assert.deepStrictEqual(
      RamStream.memSize(blocks),
      join(be64(0x6004), pcRam, be64(0x4000), hex("08", "vga.vram"), be64(0x2000))
    )
  })
})

describe("RAM stream decoder", () => {
  const refused = (
    title: string,
    offset: number,
    decoder: () => ReturnType<typeof any>,
    ...parts: ReadonlyArray<Uint8Array>
  ) =>
    it(title, () => {
      const found = complaint(decoder(), join(...parts))
      assert.isDefined(found, "the last byte given is wrong, so it must be refused without waiting for more")
      assert.isFalse(found.truncated)
      assert.strictEqual(found.offset, offset)
    })

  refused("B26: a block list in the post-copy phase is refused by its word", 0, postcopy, be64(0x04))
  refused("a block list with a total is refused in the post-copy phase too", 0, postcopy, be64(0x1000004))
  refused("B27: a record with neither COMPRESS nor PAGE is refused", 0, postcopy, be64(0x00))
  refused("B27: CONTINUE alone is refused", 0, postcopy, be64(0x20))
  refused("a record with both COMPRESS and PAGE is refused", 0, postcopy, be64(0x0a))
  refused("the obsolete flag FULL is refused", 0, postcopy, be64(0x09))
  refused("a flag of later dialects (XBZRLE) is refused", 0, postcopy, be64(0x48))
  refused("a flag of later dialects (HOOK) is refused", 0, postcopy, be64(0x80))
  refused("bits between the flags and the page size are refused", 0, postcopy, be64(0x808))
  refused("EOS with an offset is refused", 0, postcopy, be64(0x1010))
  refused("EOS with another flag is refused", 0, postcopy, be64(0x30))
  refused("a block list with another flag is refused", 0, any, be64(0x24))
  refused("CONTINUE before any block is refused by its word", 0, postcopy, be64(0x28))
  refused("B28: an empty name is refused by its length byte", 8, postcopy, be64(0x08), hex("00"))
  refused("an unknown block is refused as soon as its name is there", 9, postcopy, be64(0x08), hex("03", "vga"))
  refused("B28: an offset beyond its block is refused", 0, postcopy, be64(0x4008), pcRam)
  refused(
    "an offset beyond the context's block is refused by its word",
    4111,
    postcopy,
    be64(0x08),
    pcRam,
    page,
    be64(0x4028)
  )
  refused("an offset above 2^63 is refused", 0, postcopy, be64(2n ** 64n - 4096n + 8n), pcRam)
  refused("a second EOS is refused", 8, postcopy, be64(0x10), be64(0x10))
  refused("any byte after EOS is refused", 8, postcopy, be64(0x10), hex("00"))
  refused("a page before the switchover is refused", 0, section, be64(0x08))
  refused("a fill before the switchover is refused", 0, section, be64(0x02))
  refused("B70: a list that exceeds its total is refused by the length", 15, section, be64(0x1004), pcRam, be64(0x4000))
  refused("B70: a list that exceeds its total by one byte is refused", 15, any, be64(0x1004), pcRam, be64(0x1001))
  refused("B70: a list whose sum would wrap is refused", 15, any, be64(0x1004), pcRam, be64(2n ** 64n - 1n))
  refused("a list with a block of another length is refused", 15, section, be64(0x5004), pcRam, be64(0x5000))
  refused("a list with an unknown block is refused by its name", 9, section, be64(0x6004), hex("03", "vga"))
  refused("a list with an empty name is refused", 8, section, be64(0x6004), hex("00"))
  refused("a list without one of the blocks is refused", 0, section, be64(0x4004), pcRam, be64(0x4000))
  refused("a block that is listed twice is refused", 24, any, be64(0x8004), pcRam, be64(0x4000), pcRam)
  refused("a block of no bytes is refused", 15, any, be64(0x1004), pcRam, be64(0))
  refused("a second block list in the savevm phase is refused", 40, section, RamStream.memSize(blocks), be64(0x6004))
  refused(
    "a page beyond the block of the list before it is refused",
    23,
    any,
    be64(0x1004),
    pcRam,
    be64(0x1000),
    be64(0x1008),
    pcRam
  )

  it("B28: a name that is the beginning of the last one is a block of its own", () => {
    const twins = [{ idstr: "pc.ram2", length: 0x2000 }, { idstr: "pc.ram", length: 0x1000 }]
    const { messages } = decodeAll(
      postcopy({ blocks: twins }),
      be64(0x1002),
      hex("07", "pc.ram2", "00"),
      be64(0x02),
      pcRam,
      hex("00")
    )
    assert.deepStrictEqual(messages.map((record) => "idstr" in record && record.idstr), ["pc.ram2", "pc.ram"])
    assert.isDefined(
      complaint(postcopy({ blocks: twins }), be64(0x1002), hex("07", "pc.ram2", "00"), be64(0x1002), pcRam)
    )
  })
  it("a page at the last offset of its block is accepted, one page further it is not", () => {
    assert.isUndefined(complaint(postcopy(), be64(0x3008), pcRam))
    assert.isDefined(complaint(postcopy(), be64(0x4008), pcRam))
  })
  it("a block that ends inside a page still has that page", () => {
    const odd = { blocks: [{ idstr: "pc.ram", length: 0x1800 }] }
    assert.isUndefined(complaint(postcopy(odd), be64(0x1008), pcRam))
    assert.isDefined(complaint(postcopy(odd), be64(0x2008), pcRam))
  })
  it("more than 4096 blocks are refused", () => {
    const many = Array.from({ length: 4097 }, (_, i) => ({ idstr: `b${i}`, length: 4096 }))
    assert.include(complaint(any(), RamStream.memSize(many))?.message, "4096")
    assert.isUndefined(complaint(any(), RamStream.memSize(many.slice(1))))
  })
  it("the order of the list does not matter", () => {
    const { last, messages } = decodeAll(section(), RamStream.memSize([...blocks].reverse()), RamStream.eos())
    assert.strictEqual(last._tag, "End")
    assert.deepStrictEqual(messages.map(({ _tag }) => _tag), ["MemSize", "Eos"])
  })
  it("a caller may judge each block of a list: its name as soon as that is there, then its length", () => {
    const seen: Array<readonly [string, number | undefined]> = []
    const section = () =>
      RamStream.decoder({
        phase: "section",
        refuseBlock: (idstr, length) => {
          seen.push([idstr, length])
          if (idstr === "bogus") return "bogus is unknown"
          return length !== undefined && length > 0x3000 ? `${idstr} is too large` : undefined
        }
      })
    // Nothing of the length has come: a peer that sends no more is refused all the same.
    assert.strictEqual(complaint(section(), be64(0x6004), hex("05", "bogus"))?.message, "bogus is unknown")
    seen.length = 0
    const decoder = section()
    assert.strictEqual(
      complaint(decoder, be64(0x6004), hex("08", "vga.vram"), be64(0x2000), pcRam, be64(0x4000))?.message,
      "pc.ram is too large"
    )
    assert.deepStrictEqual(seen, [["vga.vram", undefined], ["vga.vram", 0x2000], ["pc.ram", undefined], [
      "pc.ram",
      0x4000
    ]])
  })
  it("EOS ends a section but not the stream of a capture", () => {
    const { last, messages } = decodeAll(
      any(),
      RamStream.memSize(blocks),
      RamStream.eos(),
      RamStream.eos(),
      be64(0x02),
      pcRam,
      hex("07")
    )
    assert.strictEqual(last._tag, "End")
    assert.deepStrictEqual(messages.map(({ _tag }) => _tag), ["MemSize", "Eos", "Eos", "Fill"])
  })
  it("B25: the end of the input before EOS is an end without an EOS record", () => {
    const { last, messages } = decodeAll(postcopy(), be64(0x08), pcRam, page)
    assert.strictEqual(last._tag, "End")
    assert.deepStrictEqual(messages.map(({ _tag }) => _tag), ["Page"])
  })
  it("B23: a page of which 2000 bytes came is not given out", () => {
    const decoder = postcopy()
    decoder.push(join(be64(0x08), pcRam, page.subarray(0, 2000)))
    assert.strictEqual(decoder.next()._tag, "NeedMore")
    decoder.push(page.subarray(2000))
    const outcome = decoder.next()
    assert.deepStrictEqual(outcome._tag === "Message" && outcome.message._tag === "Page" && outcome.message.data, page)
  })
  it("fills of every byte keep it, and pages of 8192 bytes are whole", () => {
    const big = new Uint8Array(8192).map((_, i) => i >> 5)
    const decoder = RamStream.decoder({ phase: "postcopy", targetPageSize: 8192 })
    const { messages } = decodeAll(decoder, be64(0x2008), pcRam, big, be64(0x22), hex("80"), be64(0x10))
    assert.deepStrictEqual(messages, [
      { _tag: "Page", idstr: "pc.ram", address: 0x2000, data: big, continued: false },
      { _tag: "Fill", idstr: "pc.ram", address: 0, byte: 0x80, continued: true },
      { _tag: "Eos" }
    ])
    assert.isDefined(complaint(RamStream.decoder({ phase: "postcopy", targetPageSize: 8192 }), be64(0x1008)))
  })
  it("without blocks offsets, totals and lengths above 2^53 are kept exactly", () => {
    const offset = 2n ** 63n + 2n ** 31n + 0x1000n
    const { messages: [fill] } = decodeAll(any(), be64(offset + 2n), pcRam, hex("01"))
    assert.strictEqual(fill?._tag === "Fill" && fill.exactAddress, offset)
    const total = 2n ** 60n + 0x1000n
    const { messages: [list] } = decodeAll(any(), be64(total + 4n), pcRam, be64(total))
    assert.deepStrictEqual(list?._tag === "MemSize" && list.exact, { total, lengths: [total] })
  })
  it("an offset in a longer stream is added to every offset told", () => {
    const decoder = RamStream.decoder({ phase: "postcopy", offset: 158 })
    const { last, offsets } = decodeAll(decoder, be64(0x02), pcRam, hex("00"), be64(0x22), hex("00"), hex("01"))
    assert.deepStrictEqual(offsets, [158, 174])
    assert.strictEqual(last._tag === "Malformed" && last.offset, 183)
  })
  it("page sizes that collide with the flags, or are no powers of two, cannot be configured", () => {
    for (const targetPageSize of [0, 64, 128, 3000, 2 ** 31]) {
      assert.throws(() => RamStream.decoder({ phase: "any", targetPageSize }), RangeError)
    }
  })
})

describe("RAM stream round trip", () => {
  const stream = (next: () => number, count: number) => {
    const encoder = RamStream.encoder()
    const records: Array<RamStream.RamRecord> = []
    let last = ""
    for (let i = 0; i < count; i++) {
      const { idstr, length } = blocks[Math.floor(next() * blocks.length)]!
      const address = Math.floor(next() * length / 4096) * 4096
      const continued = idstr === last
      last = idstr
      records.push(
        next() < 0.5
          ? { _tag: "Fill", idstr, address, byte: Math.floor(next() * 256), continued }
          : { _tag: "Page", idstr, address, data: page.map((byte) => byte ^ i), continued }
      )
    }
    records.push({ _tag: "Eos" })
    return { records, bytes: join(...records.map((record) => encoded(encoder, record))) }
  }

  it("any stream in pieces of any size gives the records that were encoded", () => {
    const next = random(5)
    for (const most of [1, 7, 5000, 70_000, 300_000]) {
      const { bytes, records } = stream(next, most === 1 ? 8 : 120)
      const { last, messages } = decodeAll(postcopy(), ...cut(bytes, next, most))
      assert.strictEqual(last._tag, "End")
      assert.deepStrictEqual(messages, records)
    }
  })
  it("random words never throw, and end in a record, an error or the end", () => {
    const next = random(9)
    for (let i = 0; i < 400; i++) {
      const bytes = Uint8Array.from(
        { length: Math.floor(next() * 80) },
        () => next() < 0.7 ? Math.floor(next() * 4) * 8 : Math.floor(next() * 256)
      )
      const decoder = RamStream.decoder({
        phase: (["any", "section", "postcopy"] as const)[i % 3]!,
        ...(i % 2 === 0 && { blocks })
      })
      assert.include(["End", "Malformed"], decodeAll(decoder, ...cut(bytes, next, 9)).last._tag)
    }
  })
})

describe("RAM reader", () => {
  it("lets somebody else consume a record that it has begun, where the next one continues the block", () => {
    const input = new ReceiveBuffer(0, 16384)
    const reader = new RamReader(input, { phase: "postcopy", blocks })
    assert.strictEqual(reader.continuing, -1)
    input.push(join(be64(0x1008), pcRam, page))
    assert.strictEqual(reader.next(), Read.Page)
    assert.strictEqual(reader.continuing, 0)
    const record = join(be64(0x2028), page)
    input.push(record.subarray(0, 100))
    assert.strictEqual(reader.next(), Read.NeedMore)
    assert.strictEqual(reader.continuing, 0)
    reader.rewind()
    input.push(record.subarray(100))
    input.consume(record.length)
    input.push(be64(0x3022))
    assert.strictEqual(reader.next(), Read.NeedMore)
    input.push(Uint8Array.of(9))
    assert.deepStrictEqual([reader.next(), reader.address, reader.byte], [Read.Fill, 0x3000, 9])
    // One that names its block is not for anybody else.
    input.push(be64(0x08))
    assert.strictEqual(reader.next(), Read.NeedMore)
    assert.strictEqual(reader.continuing, -1)
  })

  it("gives pages as places in the receive buffer, in chunks read straight into it", () => {
    const input = new ReceiveBuffer(0, 1024)
    const reader = new RamReader(input, { phase: "postcopy", blocks })
    const bytes = join(be64(0x1008), pcRam, page, be64(0x02), hex("08", "vga.vram", "05"), be64(0x10))
    const found: Array<unknown> = []
    for (const piece of cut(bytes, random(2), 900)) {
      input.reserve(900)
      input.bytes.set(piece, input.end)
      input.commit(piece.length)
      for (let read = reader.next(); read !== Read.NeedMore; read = reader.next()) {
        if (read === Read.Page) {
          assert.deepStrictEqual(input.bytes.slice(reader.dataAt, reader.dataAt + 4096), page)
          found.push(["page", reader.blockIndex, reader.address, reader.continued])
        } else if (read === Read.Fill) found.push(["fill", reader.blockIndex, reader.address, reader.byte])
        else found.push(read)
      }
    }
    assert.deepStrictEqual(found, [["page", 0, 0x1000, false], ["fill", 1, 0, 5], Read.Eos])
    assert.isTrue(reader.idle)
    assert.strictEqual(input.available, 0)
  })
  it("page data is a view of the buffer and no copy", () => {
    const decoder = postcopy()
    decoder.push(join(be64(0x08), pcRam, page, be64(0x1028), page))
    const first = decoder.next()
    const second = decoder.next()
    if (first._tag !== "Message" || first.message._tag !== "Page") return assert.fail("no page")
    if (second._tag !== "Message" || second.message._tag !== "Page") return assert.fail("no second page")
    assert.strictEqual(first.message.data.buffer, second.message.data.buffer)
  })
  it("the words of a record are read once, however its bytes arrive", () => {
    const read = vi.spyOn(ReceiveBuffer.prototype, "be32")
    const decoder = postcopy()
    const bytes = join(be64(0x08), pcRam, page, be64(0x10))
    for (let i = 0; i < bytes.length; i++) {
      decoder.push(bytes.subarray(i, i + 1))
      take(decoder)
    }
    assert.strictEqual(read.mock.calls.length, 4)
    read.mockRestore()
  })
})
