import { assert, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { directory, type Ended, start } from "./Postcopy.ts"

const bytes = (hex: string): Uint8Array => Buffer.from(hex.replaceAll(/\s/g, ""), "hex")

const inspect = (channel: string, input: string | Uint8Array, ...args: ReadonlyArray<string>): Promise<Ended> =>
  start(["inspect", channel, "--json", ...args], { input: typeof input === "string" ? bytes(input) : input }).ended

const shows = async (
  channel: string,
  input: string | Uint8Array,
  expected: ReadonlyArray<object>,
  ...args: ReadonlyArray<string>
) => {
  const { code, objects, stderr } = await inspect(channel, input, ...args)
  assert.deepStrictEqual(objects, expected)
  assert.deepStrictEqual([code, stderr], [0, ""])
}

const fails = async (
  channel: string,
  input: string | Uint8Array,
  tag: "Malformed" | "Truncated",
  offset: number,
  before: ReadonlyArray<object> = []
) => {
  const { code, error, objects } = await inspect(channel, input)
  assert.deepStrictEqual(objects, before)
  assert.strictEqual(code, 65)
  assert.strictEqual(error.tag, tag)
  assert.strictEqual(error.offset, offset)
  assert.isNotEmpty(error.message)
}

const pcRam = "06 70 63 2e 72 61 6d"
const page = Uint8Array.from({ length: 4096 }, (_, i) => i % 256)
const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex")

describe("inspect request", () => {
  it("shows every kind of message, in order", () =>
    shows(
      "request",
      `00
       01 ${pcRam} 00 00 00 01 00 00 00 00 00 00 00 00
       02 00 00 00 02 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 11
       04 00 00 00 01 00 00 00 00 00 00 00 10
       05 ${pcRam} 00 00 00 01 00 00 00 00 00 00 00 03
       01 ${pcRam} 00 00 00 00
       06`,
      [
        { offset: 0, cmd: "INIT" },
        { offset: 1, cmd: "ON_DEMAND", idstr: "pc.ram", pages: [0] },
        { offset: 21, cmd: "ON_DEMAND_CONT", pages: [16, 17] },
        { offset: 42, cmd: "BACKGROUND_CONT", pages: [16] },
        { offset: 55, cmd: "REMOVE", idstr: "pc.ram", pages: [3] },
        { offset: 75, cmd: "ON_DEMAND", idstr: "pc.ram", pages: [] },
        { offset: 87, cmd: "EOC" }
      ]
    ))

  it("of an unknown command is malformed, after what came before", () =>
    fails("request", "00 07", "Malformed", 1, [{ offset: 0, cmd: "INIT" }]))

  it("of an empty name is malformed", async () => {
    assert.strictEqual((await inspect("request", "01 00")).error.tag, "Malformed")
  })

  it("that ends within a message is truncated", () =>
    fails("request", `00 01 ${pcRam} 00 00`, "Truncated", 1, [{ offset: 0, cmd: "INIT" }]))

  it("of nothing shows nothing", () => shows("request", "", []))
})

describe("inspect ram", () => {
  it("shows pages by their hash, fills by their byte, and the end", () =>
    shows(
      "ram",
      Buffer.concat([
        bytes(`00 00 00 00 00 00 50 08 ${pcRam}`),
        page,
        bytes("00 00 00 00 00 00 30 22 ff 00 00 00 00 00 00 00 10")
      ]),
      [
        { offset: 0, type: "page", idstr: "pc.ram", address: 0x5000, sha256: sha256(page) },
        { offset: 4111, type: "fill", idstr: "pc.ram", address: 0x3000, byte: 255, continue: true },
        { offset: 4120, type: "eos" }
      ]
    ))

  it("with CONTINUE first is malformed", async () => {
    const { code, error } = await inspect("ram", "00 00 00 00 00 00 30 22 ff")
    assert.deepStrictEqual([code, error.tag, error.offset], [65, "Malformed", 0])
  })

  it("is read in constant memory", async () => {
    // 96 MiB through a process that may have 64 MiB of old space; its lines are read as they come.
    const record = Buffer.concat([bytes("00 00 00 00 00 00 50 28"), page])
    const first = Buffer.concat([bytes(`00 00 00 00 00 00 50 08 ${pcRam}`), page])
    const { child, ended } = start(["inspect", "ram", "--json"], {
      env: { NODE_OPTIONS: "--max-old-space-size=64" },
      input: Buffer.concat([first, ...Array.from({ length: 24_000 }, () => record)])
    })
    child.stdout!.resume()
    const { code, objects } = await ended
    assert.strictEqual(code, 0)
    assert.strictEqual(objects.length, 24_001)
  })
})

describe("inspect pipe", () => {
  it("shows both directions", () =>
    shows(
      "pipe",
      `52 72 54 02 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00
       74 01 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 45 51 71`,
      [
        { offset: 0, type: "READY", from: "daemon" },
        { offset: 1, type: "READY", from: "guest" },
        { offset: 2, type: "TRIGGER_PAGE_FAULT", from: "daemon", pages: [5, 6] },
        { offset: 27, type: "PAGE_FAULTED", from: "guest", pages: [5] },
        { offset: 44, type: "ERROR", from: "daemon" },
        { offset: 45, type: "QUIT", from: "daemon" },
        { offset: 46, type: "QUIT", from: "guest" }
      ]
    ))

  it("of an unknown message is malformed", () => fails("pipe", "58", "Malformed", 0))

  it("of an empty list is malformed", async () => {
    assert.strictEqual((await inspect("pipe", "54 00 00 00 00 00 00 00 00")).error.tag, "Malformed")
  })
})

describe("inspect savevm", () => {
  const header = "51 45 56 4d 00 00 00 03"
  const started = `01 00 00 00 02 03 72 61 6d 00 00 00 00 00 00 00 04
    00 00 00 00 01 00 00 04 ${pcRam} 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 10`

  it("shows sections, what is in them, and the records after the end", async () => {
    const stream = `${header} ${started} 03 00 00 00 02 00 00 00 00 00 00 00 10 00
      00 00 00 00 00 00 30 02 ${pcRam} 07 00 00 00 00 00 00 00 10`
    const { code, objects } = await inspect("savevm", stream)
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(objects.map(({ type }) => type), [
      "header",
      "start",
      "memSize",
      "eos",
      "end",
      "eos",
      "eof",
      "fill",
      "eos"
    ])
    assert.deepStrictEqual(objects[0], { offset: 0, type: "header", version: 3 })
    assert.deepStrictEqual(objects[2].blocks, [{ idstr: "pc.ram", length: 2 ** 24 }])
  })

  it("of a wrong magic is malformed at once", async () => {
    const { code, error } = await inspect("savevm", "51 45 56 4e 00 00 00 03")
    assert.deepStrictEqual([code, error.tag], [65, "Malformed"])
  })

  it("knows device sections whose length it is told", async () => {
    const device = "04 00 00 00 09 03 63 70 75 00 00 00 00 00 00 00 02 aa bb cc 00"
    const { code, objects } = await inspect("savevm", `${header} ${device}`, "--devices", "cpu=3,other=1")
    assert.strictEqual(code, 0)
    assert.deepInclude(objects[1], { type: "full", name: "cpu", instance: 0, version: 2 })
    assert.strictEqual((await inspect("savevm", `${header} ${device}`)).code, 65)
  })
})

describe("inspect", () => {
  it("reads a file, and is a table for people", async () => {
    const file = join(directory(), "capture")
    writeFileSync(file, bytes(`00 01 ${pcRam} 00 00 00 01 00 00 00 00 00 00 00 00 07`))
    const { code, stderr, stdout } = await start(["inspect", "request", file]).ended
    assert.strictEqual(code, 65)
    assert.match(stdout, /0 +INIT/)
    assert.match(stdout, /1 +ON_DEMAND +idstr=pc\.ram pages=\[0\]/)
    assert.match(stderr, /^postcopy: request: [^\n]+ \(at byte 21\)\n$/)
  })

  it("ends when nobody reads it any more", async () => {
    const record = bytes("02 00 00 00 01 00 00 00 00 00 00 00 10")
    const { child, ended } = start(["inspect", "request", "--json"], {
      input: Buffer.concat([bytes(`01 ${pcRam} 00 00 00 00`), ...Array.from({ length: 200_000 }, () => record)])
    })
    await once(child.stdout!, "data")
    child.stdout!.destroy()
    assert.strictEqual((await ended).code, 0)
  })

  it("needs neither userfaultfd nor the addon", async () => {
    const { code, objects } = await start(["inspect", "request", "--json"], {
      input: bytes("00"),
      env: { NODE_OPTIONS: `--require ${new URL("./NoAddon.cjs", import.meta.url).pathname}` }
    }).ended
    assert.deepStrictEqual([code, objects.length], [0, 1])
  })
})
