import { assert, describe, it } from "@effect/vitest"
import { hash } from "node:crypto"
import * as Inspect from "../../src/protocol/umem/Inspect.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import { be64, cut, hex, join, le64, random } from "./Streams.ts"
import * as Vectors from "./Vectors.ts"

const sha256 = (bytes: Uint8Array) => hash("sha256", bytes)
const pcRam = hex("06", "pc.ram")

const inspect = (channel: Inspect.Channel, pieces: ReadonlyArray<Uint8Array>, devices?: Record<string, number>) => {
  const inspector = Inspect.inspect(channel, { sha256, ...(devices && { devices }) })
  const objects = pieces.flatMap((piece) => [...inspector.push(piece)])
  const { error, objects: rest } = inspector.finish()
  // What is printed is JSON: what does not survive it was never there.
  return { objects: JSON.parse(JSON.stringify([...objects, ...rest])) as ReadonlyArray<unknown>, error }
}

describe("inspect", () => {
  it("shows every request, with a name where the message has one", () => {
    const bytes = join(
      ...[1, 3, 5, 7, 9, 2].map((number) => Vectors.requests.find((vector) => vector.number === number)!.bytes)
    )
    const removal = Request.encode({ cmd: 5, idstr: "vga.vram", pages: [1] })
    const background = Request.encode({ cmd: 3, idstr: "vga.vram", pages: [2] })
    const { error, objects } = inspect("request", [join(removal, background, bytes)])
    assert.isUndefined(error)
    assert.deepStrictEqual(objects, [
      { offset: 0, cmd: "REMOVE", idstr: "vga.vram", pages: [1] },
      { offset: 22, cmd: "BACKGROUND", idstr: "vga.vram", pages: [2] },
      { offset: 44, cmd: "INIT" },
      { offset: 45, cmd: "ON_DEMAND", idstr: "pc.ram", pages: [0] },
      { offset: 65, cmd: "ON_DEMAND_CONT", pages: [16, 17] },
      { offset: 86, cmd: "BACKGROUND_CONT", pages: [16] },
      { offset: 99, cmd: "ON_DEMAND", idstr: "pc.ram", pages: [] },
      { offset: 111, cmd: "EOC" }
    ])
  })
  it("shows every RAM record, with the block's name also where the record continues it", () => {
    const bytes = join(
      be64(0x6004),
      pcRam,
      be64(0x6000),
      be64(0x10),
      Vectors.ram[0]!.bytes,
      be64(0x1022),
      hex("07"),
      be64(0x2028),
      new Uint8Array(4096),
      Vectors.ram[1]!.bytes,
      be64(0x10)
    )
    const { error, objects } = inspect("ram", [bytes])
    assert.isUndefined(error)
    assert.deepStrictEqual(objects, [
      { offset: 0, type: "memSize", total: 0x6000, blocks: [{ idstr: "pc.ram", length: 0x6000 }] },
      { offset: 23, type: "eos" },
      { offset: 31, type: "page", idstr: "pc.ram", address: 0x5000, sha256: sha256(Vectors.countingPage) },
      { offset: 4142, type: "fill", idstr: "pc.ram", address: 0x1000, byte: 7, continue: true },
      {
        offset: 4151,
        type: "page",
        idstr: "pc.ram",
        address: 0x2000,
        sha256: sha256(new Uint8Array(4096)),
        continue: true
      },
      { offset: 8255, type: "fill", idstr: "pc.ram", address: 0x3000, byte: 0xff },
      { offset: 8271, type: "eos" }
    ])
  })
  it("shows messages of both sides of the pipes", () => {
    const bytes = join(...Vectors.pipe.map(({ bytes }) => bytes), hex("75"), le64(1), le64(3))
    const { error, objects } = inspect("pipe", [bytes])
    assert.isUndefined(error)
    assert.deepStrictEqual(objects, [
      { offset: 0, type: "READY", from: "daemon" },
      { offset: 1, type: "READY", from: "guest" },
      { offset: 2, type: "QUIT", from: "daemon" },
      { offset: 3, type: "QUIT", from: "guest" },
      { offset: 4, type: "ERROR", from: "daemon" },
      { offset: 5, type: "TRIGGER_PAGE_FAULT", from: "daemon", pages: [5, 6] },
      { offset: 30, type: "PAGE_FAULTED", from: "guest", pages: [5, 6] },
      { offset: 55, type: "PAGE_UNMAPPED", from: "guest", pages: [3] }
    ])
  })
  const savevmObjects = [
    { offset: 0, type: "header", version: 3 },
    { offset: 8, type: "start", section: 1, name: "block", instance: 0, version: 1 },
    { offset: 35, type: "start", section: 2, name: "ram", instance: 0, version: 4 },
    { offset: 52, type: "memSize", total: 2 ** 24, blocks: [{ idstr: "pc.ram", length: 2 ** 24 }] },
    { offset: 75, type: "eos" },
    { offset: 83, type: "part", section: 1, name: "block", instance: 0, version: 1 },
    { offset: 96, type: "part", section: 2, name: "ram", instance: 0, version: 4 },
    { offset: 101, type: "eos" },
    { offset: 109, type: "end", section: 1, name: "block", instance: 0, version: 1 },
    { offset: 122, type: "end", section: 2, name: "ram", instance: 0, version: 4 },
    { offset: 127, type: "eos" },
    { offset: 135, type: "full", section: 3, name: "dev0", instance: 0, version: 1 },
    { offset: 157, type: "eof" }
  ]
  const postcopy = join(be64(0x08), pcRam, Vectors.countingPage, be64(0x1022), hex("00"), be64(0x10))
  it("goes on with the page records after the switchover, whatever a read ends with", () => {
    const bytes = join(Vectors.savevm, postcopy)
    const expected = [
      ...savevmObjects,
      { offset: 158, type: "page", idstr: "pc.ram", address: 0, sha256: sha256(Vectors.countingPage) },
      { offset: 4269, type: "fill", idstr: "pc.ram", address: 0x1000, byte: 0, continue: true },
      { offset: 4278, type: "eos" }
    ]
    const next = random(8)
    for (
      const pieces of [[bytes], cut(bytes, next, 1), cut(bytes, next, 200), [
        bytes.subarray(0, 158),
        bytes.subarray(158)
      ]]
    ) {
      const { error, objects } = inspect("savevm", pieces, { dev0: 4 })
      assert.isUndefined(error)
      assert.deepStrictEqual(objects, expected)
    }
  })
  it("after the switchover refuses what the post-copy phase refuses, at its place in the whole capture", () => {
    for (
      const [bytes, offset] of [
        [be64(0x1004), 158],
        [join(postcopy, hex("00")), 4286],
        [join(be64(2 ** 24 + 8), pcRam), 158],
        [join(be64(0x08), hex("03", "vga")), 167]
      ] as const
    ) {
      const { error, objects } = inspect("savevm", [Vectors.savevm, bytes], { dev0: 4 })
      assert.strictEqual(error?.tag, "Malformed")
      assert.strictEqual(error?.offset, offset)
      assert.deepStrictEqual(objects.slice(0, savevmObjects.length), savevmObjects)
    }
  })
  it("a device whose length was not given is malformed at its name", () => {
    const { error, objects } = inspect("savevm", [Vectors.savevm])
    assert.deepStrictEqual(objects, savevmObjects.slice(0, 11))
    assert.strictEqual(error?.tag, "Malformed")
    assert.strictEqual(error?.offset, 141)
  })
  it("input that ends inside a message is truncated at the message's first byte", () => {
    const first = Vectors.requests[2]!.bytes
    const { error, objects } = inspect("request", [first, first.subarray(0, 13)])
    assert.strictEqual(objects.length, 1)
    assert.deepStrictEqual(error, {
      tag: "Truncated",
      offset: 20,
      message: "the input ends inside a request, 13 bytes into it"
    })
    assert.strictEqual(inspect("ram", [Vectors.ram[0]!.bytes.subarray(0, 4110)]).error?.offset, 0)
    assert.strictEqual(inspect("savevm", [Vectors.savevm, be64(8)], { dev0: 4 }).error?.offset, 158)
  })
  it("messages before a malformed one are shown, and nothing after it", () => {
    const inspector = Inspect.inspect("request", { sha256 })
    assert.strictEqual(inspector.push(hex("00 00 07 00")).length, 2)
    assert.strictEqual(inspector.error()?.offset, 2)
    assert.strictEqual(inspector.push(hex("00")).length, 0)
    assert.deepStrictEqual(inspector.finish(), {
      objects: [],
      error: { tag: "Malformed", offset: 2, message: "unknown request 7" }
    })
  })
  it("the negative vectors are malformed", () => {
    const page = Request.encode({ cmd: 1, idstr: "pc.ram", pages: [0] })
    for (
      const [channel, bytes, offset] of [
        ["request", hex("07"), 0],
        ["request", hex("01 00"), 1],
        ["request", Vectors.requests[3]!.bytes, 0],
        ["request", hex("01 06", "pc.ram", "ff ff ff ff"), 8],
        ["request", join(page, hex("06 06")), page.length + 1],
        ["ram", be64(0x0a), 0],
        ["ram", be64(0x00), 0],
        ["ram", be64(0x28), 0],
        ["ram", join(be64(0x1004), pcRam, be64(0x4000)), 15],
        ["pipe", hex("58"), 0],
        ["pipe", hex("54 00 00 00 00 00 00 00 00"), 1]
      ] as const
    ) {
      const { error } = inspect(channel, [bytes])
      assert.strictEqual(error?.tag, "Malformed")
      assert.strictEqual(error?.offset, offset)
    }
  })
  it("numbers above 2^53 are decimal strings, up to it numbers", () => {
    const request = join(hex("01 01", "x", "00 00 00 03"), be64(2n ** 53n), be64(2n ** 53n + 1n), be64(2n ** 64n - 1n))
    assert.deepStrictEqual(inspect("request", [request]).objects, [
      { offset: 0, cmd: "ON_DEMAND", idstr: "x", pages: [2 ** 53, "9007199254740993", "18446744073709551615"] }
    ])
    const big = 2n ** 63n
    assert.deepStrictEqual(
      inspect("ram", [be64(big + 2n), pcRam, hex("01"), be64(big + 4n), pcRam, be64(big)]).objects,
      [
        { offset: 0, type: "fill", idstr: "pc.ram", address: "9223372036854775808", byte: 1 },
        {
          offset: 16,
          type: "memSize",
          total: "9223372036854775808",
          blocks: [{ idstr: "pc.ram", length: "9223372036854775808" }]
        }
      ]
    )
    assert.deepStrictEqual(inspect("pipe", [hex("75"), le64(1), le64(big)]).objects, [
      { offset: 0, type: "PAGE_UNMAPPED", from: "guest", pages: ["9223372036854775808"] }
    ])
  })
  it("nothing at all is no error", () => {
    for (const channel of ["request", "ram", "pipe", "savevm"] as const) {
      assert.deepStrictEqual(Inspect.inspect(channel, { sha256 }).finish(), { objects: [] })
    }
  })
})
