/** The source's actors speaking QEMU's dialect: huge pages, pages that come first, recovery, the second channel. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Queue } from "effect"
import { TestClock } from "effect/testing"
import { MAILBOX_CAPACITY, type SenderMessage } from "../../src/actors/Mailboxes.ts"
import * as RequestReceiver from "../../src/actors/RequestReceiver.ts"
import * as SourceSender from "../../src/actors/SourceSender.ts"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import type { Decoder } from "../../src/protocol/Decoder.ts"
import * as QemuDialect from "../../src/protocol/qemu/QemuDialect.ts"
import * as ReturnPath from "../../src/protocol/qemu/ReturnPath.ts"
import * as Stream from "../../src/protocol/qemu/Stream.ts"
import * as StreamDecoder from "../../src/protocol/qemu/StreamDecoder.ts"
import type { StreamItem } from "../../src/protocol/qemu/StreamItem.ts"
import { fromBytes } from "../../src/services/GuestMemory.ts"
import { AGAIN } from "../../src/services/Link.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import * as RateLimit from "../../src/services/RateLimit.ts"
import { blockOf, PAGE } from "./Contents.ts"
import { settle, until } from "./Turns.ts"

const HUGE = 64 * PAGE

interface Options extends Pick<SourceSender.Options, "received" | "first"> {
  readonly contents: Readonly<Record<string, Uint8Array>>
  readonly huge?: ReadonlyArray<string>
  readonly background?: boolean
  readonly preempt?: boolean
  readonly remainder?: Uint8Array
  /** Bytes that the link holds. */
  readonly capacity?: number
}

const rig = Effect.fnUntraced(
  function*(
    { background = true, contents, huge = [], preempt = false, remainder, capacity = 65536, ...rest }: Options
  ) {
    const [here, there] = yield* LinkMemory.pair({ capacity })
    const [quickHere, quickThere] = yield* LinkMemory.pair()
    const blocks = Object.entries(contents).map(([idstr, bytes]) => ({
      ...fromBytes(idstr, bytes),
      hostPageSize: huge.includes(idstr) ? HUGE : PAGE
    }))
    const described = blocks.map(({ hostPageSize, idstr, length }) => ({ idstr, length, pageSize: hostPageSize }))
    const dialect = QemuDialect.make({ blocks: described, ...(remainder && { remainder }) })
    // Time passes at every look at it: the guest's first steps are over at once.
    let time = 0
    const inbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
    const sender = SourceSender.make({
      dialect,
      link: here,
      blocks,
      targetPageSize: PAGE,
      background,
      rate: RateLimit.make(undefined),
      inbox,
      now: () => time += 10,
      ...(preempt && { urgent: { link: quickHere, encoder: QemuDialect.preemptEncoder() } }),
      ...rest
    })
    const receiver = RequestReceiver.make({
      dialect,
      link: here,
      blocks,
      targetPageSize: PAGE,
      server: sender,
      sender: inbox
    })
    const got: Array<{ readonly channel: string; readonly item: StreamItem }> = []
    const read = (channel: string, link: LinkMemory.MemoryLink, decoder: Decoder<StreamItem>) => {
      const buffer = new Uint8Array(65536)
      link.attach(() => {
        for (let n = link.read(buffer, 0, buffer.length); n > 0; n = link.read(buffer, 0, buffer.length)) {
          decoder.push(buffer.slice(0, n))
          for (let one = decoder.next(); one._tag === "Message"; one = decoder.next()) {
            const { message } = one
            got.push({ channel, item: message._tag === "Page" ? { ...message, data: message.data.slice() } : message })
          }
          const after = decoder.next()
          if (after._tag === "Malformed") throw new Error(after.message)
        }
      })
      link.watch(true, false)
    }
    const main = StreamDecoder.decoder({ resumed: described })
    main.push(Stream.resuming())
    read("main", there, main)
    const second = StreamDecoder.decoder({ resumed: described })
    second.push(Stream.resuming())
    read("quick", quickThere, second)
    const pump = (readable: boolean) => {
      if (readable) receiver.poll()
      sender.pump()
    }
    here.attach(pump)
    quickHere.attach(() => sender.pump())
    sender.begin(receiver)
    const life = yield* Effect.forkScoped(sender.run, { startImmediately: true })
    const pagesOf = (channel: string, idstr: string) =>
      got.flatMap(({ channel: on, item }) =>
        on === channel && (item._tag === "Page" || item._tag === "Zero") && item.idstr === idstr
          ? [item.address / PAGE]
          : []
      )
    return {
      sender,
      life,
      got,
      there,
      pagesOf,
      ask: (idstr: string, page: number, bytes = PAGE) => {
        const request = ReturnPath.reqPages(page * PAGE, bytes, idstr)
        assert.notStrictEqual(there.write(request, 0, request.length), AGAIN)
      },
      say: (bytes: Uint8Array) => {
        there.write(bytes, 0, bytes.length)
      },
      ended: (channel: string) =>
        got.some(({ channel: on, item }) => on === channel && item._tag === (channel === "main" ? "Eof" : "Eos"))
    }
  }
)

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

describe("QEMU's dialect on the source's actors", () => {
  it.effect("every page once, zero pages in a byte, the end of the migration, then SHUT", () =>
    Effect.gen(function*() {
      const contents = { "pc.ram": blockOf("pc.ram", 50, { 3: 0, 9: 255 }), "pc.bios": blockOf("pc.bios", 5) }
      const all = yield* rig({ contents })
      yield* until("the end", () => all.ended("main"))
      assert.deepStrictEqual(all.pagesOf("main", "pc.ram"), range(0, 50))
      assert.deepStrictEqual(all.pagesOf("main", "pc.bios"), range(0, 5))
      const zeros = all.got.flatMap(({ item }) => item._tag === "Zero" ? [item.address / PAGE] : [])
      assert.deepStrictEqual(zeros, [3])
      for (const { item } of all.got) {
        if (item._tag !== "Page") continue
        const block = contents[item.idstr as keyof typeof contents]
        assert.deepStrictEqual(item.data, block.subarray(item.address, item.address + PAGE))
      }
      yield* settle
      assert.isUndefined(all.life.pollUnsafe())
      all.say(ReturnPath.shut(0))
      yield* Fiber.join(all.life)
    }))

  it.effect("a link that takes all at once does not make it stop at the end of a turn", () =>
    Effect.gen(function*() {
      const contents = { mem0: blockOf("mem0", 16 * 64), "pc.ram": blockOf("pc.ram", 500) }
      const all = yield* rig({ contents, huge: ["mem0"], capacity: 2 ** 24 })
      yield* until("the end", () => all.ended("main"))
      assert.deepStrictEqual(all.pagesOf("main", "mem0"), range(0, 16 * 64))
    }))

  it.effect("a SHUT that says all is well, with pages unsent, fails and sends no end", () =>
    Effect.gen(function*() {
      const all = yield* rig({ contents: { "pc.ram": blockOf("pc.ram", 8) }, background: false })
      all.say(ReturnPath.shut(0))
      const error = yield* Effect.flip(Fiber.join(all.life))
      assert.match(error.detail, /8 pages were not sent/)
      yield* settle
      assert.isFalse(all.ended("main"))
    }))

  it.effect("a SHUT with a status is the destination's failure", () =>
    Effect.gen(function*() {
      const all = yield* rig({ contents: { "pc.ram": blockOf("pc.ram", 8) }, background: false })
      all.say(ReturnPath.shut(1))
      const error = yield* Effect.flip(Fiber.join(all.life))
      assert.match(error.detail, /status 1/)
    }))

  it.effect("a huge page is sent whole and in order, and nothing stands between its parts", () =>
    Effect.gen(function*() {
      const contents = { mem0: blockOf("mem0", 256, { 70: 0 }), "pc.bios": blockOf("pc.bios", 4) }
      const all = yield* rig({ contents, huge: ["mem0"], background: false })
      all.ask("mem0", 64, HUGE)
      all.ask("pc.bios", 1)
      all.ask("mem0", 64, HUGE)
      all.ask("mem0", 0, HUGE)
      yield* until("three requests answered", () => all.pagesOf("main", "mem0").length === 128)
      const order = all.got.flatMap(({ item }) =>
        item._tag === "Page" || item._tag === "Zero" ? [`${item.idstr} ${item.address / PAGE}`] : []
      )
      assert.deepStrictEqual(order, [
        ...range(64, 128).map((page) => `mem0 ${page}`),
        "pc.bios 1",
        ...range(0, 64).map((page) => `mem0 ${page}`)
      ])
      assert.deepInclude(all.sender.progress(), { onDemand: 129, background: 0 })
      all.sender.sendRest()
      yield* until("the end", () => all.ended("main"))
      assert.deepStrictEqual(all.pagesOf("main", "mem0").toSorted((a, b) => a - b), range(0, 256))
      assert.deepStrictEqual(all.pagesOf("main", "pc.bios"), [1, 0, 2, 3])
    }))

  it.effect("pages that come first are pushed before all others, also without background", () =>
    Effect.gen(function*() {
      const contents = { "pc.ram": blockOf("pc.ram", 40), "pc.bios": blockOf("pc.bios", 4) }
      const first = [
        { idstr: "pc.ram", page: 31 },
        { idstr: "pc.bios", page: 2 },
        { idstr: "pc.ram", page: 31 },
        {
          idstr: "gone",
          page: 1
        },
        { idstr: "pc.ram", page: 4000 },
        { idstr: "pc.ram", page: 7 }
      ]
      const all = yield* rig({ contents, first, background: false })
      yield* until("the first pages", () => all.pagesOf("main", "pc.ram").length === 2)
      yield* settle
      assert.deepStrictEqual(all.pagesOf("main", "pc.ram"), [31, 7])
      assert.deepStrictEqual(all.pagesOf("main", "pc.bios"), [2])
    }))

  it.effect("requests that came with a recovery's handshake are answered, though nothing follows them", () =>
    Effect.gen(function*() {
      const contents = { "pc.ram": blockOf("pc.ram", 40) }
      const remainder = ReturnPath.reqPages(9 * PAGE, PAGE, "pc.ram")
      const all = yield* rig({ contents, remainder, background: false })
      yield* until("the page", () => all.pagesOf("main", "pc.ram").length > 0)
      assert.deepStrictEqual(all.pagesOf("main", "pc.ram"), [9])
    }))

  it.effect("what the destination has is not sent again, but a huge page that it has in part", () =>
    Effect.gen(function*() {
      const contents = { mem0: blockOf("mem0", 128), "pc.bios": blockOf("pc.bios", 40) }
      const inMem0 = new Bitmap(128)
      for (const page of range(0, 100)) inMem0.set(page)
      const inBios = new Bitmap(40)
      for (const page of [0, 7, 39]) inBios.set(page)
      const all = yield* rig({ contents, huge: ["mem0"], received: [inMem0, inBios] })
      all.ask("pc.bios", 7)
      yield* until("the end", () => all.ended("main"))
      assert.deepStrictEqual(all.pagesOf("main", "mem0"), range(64, 128))
      // The background goes on behind the page that was asked for.
      assert.deepStrictEqual(all.pagesOf("main", "pc.bios"), [...range(8, 39), ...range(1, 7)])
    }))

  it.effect("requested pages take the second channel, each page takes one of them, and its end comes last", () =>
    Effect.gen(function*() {
      const contents = { "pc.ram": blockOf("pc.ram", 400, { 5: 0 }) }
      const all = yield* rig({ contents, preempt: true, background: false })
      for (const page of [390, 5, 390, 17]) all.ask("pc.ram", page)
      yield* until("the requested pages", () => all.pagesOf("quick", "pc.ram").length === 3)
      assert.deepStrictEqual(all.pagesOf("quick", "pc.ram"), [390, 5, 17])
      assert.deepStrictEqual(all.pagesOf("main", "pc.ram"), [])
      all.sender.sendRest()
      yield* until("the end of both", () => all.ended("main") && all.ended("quick"))
      assert.deepStrictEqual(
        all.pagesOf("main", "pc.ram"),
        [...range(18, 400), ...range(0, 17)].filter((page) => ![390, 5].includes(page))
      )
      const tags = all.got.map(({ channel, item }) => `${channel} ${item._tag}`)
      assert.isBelow(tags.indexOf("main Eof"), tags.indexOf("quick Eos"))
      all.say(ReturnPath.shut(0))
      yield* Fiber.join(all.life)
      assert.deepInclude(all.sender.progress(), { onDemand: 3, background: 397, dirty: 0 })
    }))

  it.effect("a second channel that breaks is the failure of the migration", () =>
    Effect.gen(function*() {
      const contents = { "pc.ram": blockOf("pc.ram", 40) }
      const all = yield* rig({ contents, preempt: true, background: false })
      yield* TestClock.adjust(1)
      all.there.reset()
      const error = yield* Effect.flip(
        Fiber.join(all.life).pipe(
          Effect.raceFirst(Effect.andThen(TestClock.adjust(1), Effect.never))
        )
      )
      assert.strictEqual(error._tag, "LinkFailed")
      assert.isFalse(all.ended("main"))
    }))
})
