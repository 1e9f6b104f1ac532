/**
 * Peers that know the wire of 2011 and nothing of this project, at either end: a scripted source sends to `receive`, a
 * scripted destination takes from `run` and `migrate`. They do what is legal and unusual, and what is not legal at all.
 */
import { once } from "node:events"
import { connect as connectTo, createServer, type Socket } from "node:net"
import { join } from "node:path"
import { assert, describe, it, onTestFinished } from "vitest"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"
import * as Wire from "./Wire.ts"

const [ram, vram] = Modules.blocks
const both = [ram, vram]
const PAGE = Wire.PAGE

// ---------------------------------------------------------------------------------------------------- as a source

const dial = (uri: string): Socket => {
  const path = uri.startsWith("unix:")
    ? { path: uri.slice(5) }
    : { port: Number(uri.split(":").at(-1)), host: "127.0.0.1" }
  const socket = connectTo(path).on("error", () => {})
  onTestFinished(() => void socket.destroy())
  return socket
}

interface Framing {
  readonly blocks?: ReadonlyArray<Wire.Block>
  readonly total?: number
  /** With the sections of block migration, as sources of 2011 have them. */
  readonly disks?: boolean
}

/** Everything up to the switchover's byte, which is not part of it. */
const framing = ({ blocks = both, disks = false, total }: Framing = {}): Buffer => {
  const disk = (bytes: Buffer) => disks ? [bytes, Wire.NO_BLOCKS] : []
  return Buffer.concat([
    Wire.header(),
    ...disk(Wire.start(1, "block", 1)),
    Wire.start(2, "ram", 4),
    Wire.memSize(blocks, total),
    Wire.EOS,
    ...disk(Wire.part(1)),
    Wire.part(2),
    Wire.EOS,
    ...disk(Wire.end(1)),
    Wire.end(2),
    Wire.EOS,
    Wire.full(7, "guest", 1),
    Wire.deviceState(Modules.freshState())
  ])
}

/** A page of a fresh notebook, always named and never as a fill. */
const page = (block: number, index: number): Buffer =>
  Wire.page(both[block]!.idstr, index * PAGE, Modules.contents(block, index))

const everyPage = both.flatMap(({ length }, block) =>
  Array.from({ length: length / PAGE }, (_, index) => [block, index] as const)
)

const receiver = async (where = "tcp:127.0.0.1:0") => {
  const dir = Host.directory()
  const uri = where === "unix" ? `unix:${join(dir, "incoming")}` : where
  const to = await Host.destination(dir, Modules.notebook(dir), uri)
  return { dir, to, socket: dial(to.uri) }
}

/** The guest is whole, everything was said goodbye to, nothing is left. */
const arrived = async (to: Host.Guest, dir: string) => {
  const { report } = await to.event("completed")
  assert.strictEqual(report.pages.onDemand + report.pages.background, everyPage.length)
  assert.deepInclude((await to.call({ op: "verify" })).answer, { ok: true, pages: everyPage.length })
  assert.strictEqual(await to.quit(), 0)
  assert.deepEqual(Host.leftIn(dir), [])
}

describe("receive takes a guest from a foreign source", () => {
  it("B24: that has block sections, names every page and writes framing, pages and EOS at once", async () => {
    const { dir, socket, to } = await receiver()
    const from = Wire.reader(socket)
    socket.write(
      Buffer.concat([framing({ disks: true }), Wire.EOF, ...everyPage.map(([b, i]) => page(b, i)), Wire.EOS])
    )
    assert.strictEqual(await from.u8(), 0, "INIT")
    const rest = await from.rest()
    assert.strictEqual(rest.at(-1), 6, "EOC is the last byte")
    await arrived(to, dir)
  })

  it("that announces its blocks the other way round, over unix, and sends pages backwards, each twice", async () => {
    const { dir, socket, to } = await receiver("unix")
    const from = Wire.reader(socket)
    socket.write(Buffer.concat([framing({ blocks: both.toReversed() }), Wire.EOF]))
    await to.event("running")
    for (const [block, index] of everyPage.toReversed()) {
      socket.write(page(block, index))
      // The second must not undo what the first brought, whatever it holds.
      socket.write(Wire.fill(both[block]!.idstr, index * PAGE, 0xee))
    }
    socket.write(Wire.EOS)
    await from.rest()
    await arrived(to, dir)
  })

  it("that writes byte by byte, and sends only what it is asked for", async () => {
    const { dir, socket, to } = await receiver()
    socket.setNoDelay(true)
    const from = Wire.reader(socket)
    for (const byte of Buffer.concat([framing(), Wire.EOF])) socket.write(Buffer.of(byte))
    const verifying = to.call({ op: "verify" })
    assert.strictEqual(await from.u8(), 0, "INIT")
    const asked = new Set<string>()
    let context = ""
    while (asked.size < everyPage.length) {
      const command = await from.u8()
      assert.include([1, 2], command)
      if (command === 1) context = await from.name()
      const block = context === ram.idstr ? 0 : 1
      for (let nr = await from.be32(); nr > 0; nr--) {
        const index = await from.be64()
        assert.isFalse(asked.has(`${block}:${index}`), "a page is asked for once")
        asked.add(`${block}:${index}`)
        const record = page(block, index)
        socket.write(record.subarray(0, 5))
        socket.write(record.subarray(5))
      }
    }
    socket.write(Wire.EOS)
    assert.deepEqual([...await from.rest()], [6])
    assert.isTrue((await verifying).answer.ok)
    await arrived(to, dir)
  })

  const refused: ReadonlyArray<readonly [what: string, bytes: Buffer, says: RegExp]> = [
    ["a block that the guest does not have", framing({ blocks: [ram, { ...vram, idstr: "vga.vra" }] }), /vga\.vra/],
    ["a block of another length", framing({ blocks: [ram, { ...vram, length: vram.length * 2 }] }), /vga\.vram/],
    ["a list with a block too few", framing({ blocks: [ram] }), /vga\.vram/],
    ["a list whose lengths exceed its total", framing({ total: ram.length + PAGE }), /total|exceed/],
    ["another savevm version", Wire.header(2), /version 2/],
    [
      "a page before the switchover",
      Buffer.concat([framing().subarray(0, 28), page(0, 0)]),
      /before the switchover|record/
    ]
  ]
  it.each(refused)("not one that announces %s: exit 65, and no guest runs", async (_, bytes, says) => {
    const { dir, socket, to } = await receiver()
    socket.write(bytes)
    const { code, error, lines } = await to.ended
    assert.strictEqual(code, 65)
    assert.match(error!.message, says)
    assert.deepEqual(lines.map(({ event }) => event), ["listening", "failed"])
    assert.deepEqual(Host.leftIn(dir), [])
  })

  const lethal: ReadonlyArray<readonly [what: string, bytes: Buffer]> = [
    ["a page beyond its block", Wire.page(vram.idstr, vram.length, Buffer.alloc(PAGE))],
    ["a block list", Wire.memSize(both)],
    ["a record of neither page nor fill", Wire.be64(0)],
    ["EOS with pages missing", Wire.EOS]
  ]
  it.each(lethal)("and parks it where %s follows the switchover", async (_, bytes) => {
    const { socket, to } = await receiver()
    socket.write(Buffer.concat([framing(), Wire.EOF, page(0, 5), bytes]))
    const { error } = await to.event("failed")
    assert.match(error.message, /parked/)
    assert.deepInclude(await to.status(), { state: "failed" })
    const { code, error: told } = await to.call({ op: "ping" })
    assert.strictEqual(code, 70)
    assert.match(told!.message, /parked/)
    assert.strictEqual(await to.quit(), 70)
  })
})

// ------------------------------------------------------------------------------------------------ as a destination

const serve = async (dir: string) => {
  const path = join(dir, "there")
  const server = createServer().listen(path)
  onTestFinished(() => void server.close())
  await once(server, "listening")
  const socket = once(server, "connection").then(([accepted]) => {
    const one = accepted as Socket
    one.on("error", () => {})
    onTestFinished(() => void one.destroy())
    return one
  })
  return { uri: `unix:${path}`, socket, close: () => server.close() }
}

interface Records {
  /** Pages by block and index. */
  readonly pages: Map<string, Buffer>
  /** The next record: false at EOS. */
  readonly next: () => Promise<boolean>
}

const records = (from: Wire.Reader): Records => {
  const pages = new Map<string, Buffer>()
  let context = ""
  return {
    pages,
    next: async () => {
      const word = await from.be64()
      const flags = word % PAGE
      if (flags === 0x10) return false
      if ((flags & 0x20) === 0) context = await from.name()
      const bytes = (flags & 0x08) !== 0 ? await from.read(PAGE) : Buffer.alloc(PAGE, await from.u8())
      const key = `${context}:${(word - flags) / PAGE}`
      assert.isFalse(pages.has(key), "a page is sent once")
      pages.set(key, bytes)
      return true
    }
  }
}

/** Reads up to and including the switchover's byte. */
const framed = async (from: Wire.Reader) => {
  assert.deepEqual(await from.read(8), Wire.header())
  const sections = new Map<number, string>()
  const seen: Array<string> = []
  let blocks: Array<Wire.Block> = []
  let state: Buffer = Buffer.alloc(0)
  for (let type = await from.u8(); type !== 0; type = await from.u8()) {
    const id = await from.be32()
    if (type === 1 || type === 4) {
      sections.set(id, await from.name())
      assert.strictEqual(await from.be32(), 0)
      assert.strictEqual(await from.be32(), sections.get(id) === "ram" ? 4 : 1)
    }
    seen.push(`${type} ${sections.get(id)}`)
    if (sections.get(id) === "guest") state = await from.read(await from.be32())
    else if (type === 1) {
      let left = await from.be64() - 4
      blocks = []
      while (left > 0) {
        const block = { idstr: await from.name(), length: await from.be64() }
        blocks.push(block)
        left -= block.length
      }
      assert.deepEqual(await from.read(8), Wire.EOS)
    } else assert.deepEqual(await from.read(8), Wire.EOS)
  }
  return { blocks, seen, state }
}

const sender = async (args: ReadonlyArray<string> = []) => {
  const dir = Host.directory()
  const from = await Host.source(dir, Modules.notebook(dir))
  const there = await serve(dir)
  const migration = Host.migrate(from, there.uri, args)
  const socket = await there.socket
  return { dir, from, migration, socket, wire: Wire.reader(socket), close: there.close }
}

/** The migration is confirmed, and the source lets go. */
const left = async ({ close, dir, from, migration, socket }: Awaited<ReturnType<typeof sender>>) => {
  socket.write(Wire.EOC)
  const { answer, code, stderr } = await migration.ended
  assert.strictEqual(code, 0, stderr)
  assert.match((await from.call({ op: "ping" })).error!.message, /moved/)
  assert.strictEqual(await from.quit(), 0)
  socket.destroy()
  close()
  assert.deepEqual(Host.leftIn(dir), [])
  return answer.report
}

describe("migrate gives a guest to a foreign destination", () => {
  it("that never asks and never says INIT: every page comes once, then EOS, and nothing behind it", async () => {
    const moving = await sender()
    const { blocks, seen, state } = await framed(moving.wire)
    assert.deepEqual(blocks, both.map(({ idstr, length }) => ({ idstr, length })))
    assert.deepEqual(seen, ["1 ram", "2 ram", "3 ram", "4 guest"])
    assert.deepInclude(JSON.parse(state.toString()), { count: 0, discarded: [] })
    const { next, pages } = records(moving.wire)
    while (await next());
    for (const [block, index] of everyPage) {
      assert.deepEqual(pages.get(`${both[block]!.idstr}:${index}`), Modules.contents(block, index))
    }
    const report = await left(moving)
    assert.deepInclude(report.pages, { total: everyPage.length, onDemand: 0, background: everyPage.length })
    assert.strictEqual(report.pages.fill, everyPage.length / 4)
    assert.strictEqual((await moving.wire.rest()).length, 0)
  })

  it("that asks in every legal way without background: CONT, empty lists, BACKGROUND, repetitions, REMOVE", async () => {
    const moving = await sender(["--nobg"])
    const { socket, wire } = moving
    await framed(wire)
    const { next, pages } = records(wire)
    const expects = async (...keys: ReadonlyArray<string>) => {
      for (const key of keys) {
        assert.isTrue(await next())
        assert.isTrue(pages.has(key), key)
      }
    }
    socket.write(Buffer.concat([Wire.request(1, vram.idstr, []), Wire.request(2, undefined, [3, 1])]))
    await expects("vga.vram:3", "vga.vram:1")
    for (const byte of Wire.request(1, ram.idstr, [9])) socket.write(Buffer.of(byte))
    await expects("pc.ram:9")
    socket.write(Buffer.concat([Wire.request(5, vram.idstr, [0, 2]), Wire.request(4, undefined, [10, 9, 10])]))
    await expects("pc.ram:10")
    // What was removed, or came already, is not sent again; what is asked for behind it is.
    socket.write(Buffer.concat([Wire.request(3, vram.idstr, [0, 2, 3, 4]), Wire.request(4, undefined, [])]))
    await expects("vga.vram:4")
    assert.strictEqual(pages.size, 5)
    socket.write(Wire.EOC)
    assert.isFalse(await next(), "EOS")
    const { answer, code } = await moving.migration.ended
    assert.strictEqual(code, 0)
    assert.deepInclude(answer.report.pages, { onDemand: 5, background: 0, removed: 2 })
    assert.strictEqual(await moving.from.quit(), 0)
  })

  const illegal: ReadonlyArray<readonly [what: string, bytes: Buffer]> = [
    ["an unknown command", Buffer.of(7)],
    ["an empty name", Buffer.of(1, 0)],
    ["CONT before any block", Wire.request(2, undefined, [0])],
    ["a block that it has not", Wire.request(1, "pc.rom", [0])],
    ["a beginning of a block's name", Wire.request(1, "pc.ra", [0])],
    ["2^32 - 1 pages", Buffer.concat([Wire.request(1, ram.idstr, []).subarray(0, 8), Wire.be32(0xffffffff)])],
    ["a page beyond its block", Wire.request(1, vram.idstr, [vram.length / PAGE])],
    ["the removal of a page beyond its block", Wire.request(5, vram.idstr, [vram.length / PAGE])]
  ]
  it.each(illegal)("and fails when it sends %s: the guest is not run again here", async (_, bytes) => {
    const moving = await sender(["--nobg"])
    await framed(moving.wire)
    moving.socket.write(bytes)
    const { code, error } = await moving.migration.ended
    assert.strictEqual(code, 70)
    assert.match(error!.message, /request that cannot be.*the guest runs at the destination/)
    assert.strictEqual((await moving.from.resume()).code, 1)
    assert.strictEqual((await moving.from.call({ op: "ping" })).code, 70)
    assert.strictEqual(await moving.from.quit(), 70)
  })

  it("that is gone before the switchover: exit 75, and the guest goes on as if nothing had happened", async () => {
    const moving = await sender()
    await moving.wire.read(8)
    moving.socket.destroy()
    const { code, error } = await moving.migration.ended
    assert.strictEqual(code, 75)
    assert.match(error!.message, /the guest still runs at the source/)
    assert.deepEqual((await moving.from.call({ op: "add" })).answer, { count: 1 })
    assert.isTrue((await moving.from.call({ op: "verify" })).answer.ok)
    assert.strictEqual(await moving.from.quit(), 0)
  })

  it("that is gone after it without a word: exit 70, the guest may run there", async () => {
    const moving = await sender(["--nobg"])
    await framed(moving.wire)
    moving.socket.destroy()
    const { code, error } = await moving.migration.ended
    assert.strictEqual(code, 70)
    assert.match(error!.message, /may or may not run/)
    assert.strictEqual(await moving.from.quit(), 70)
  })
})
