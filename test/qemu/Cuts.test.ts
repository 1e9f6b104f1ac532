/**
 * Connections that end at any byte of the page phase, and return paths that say what cannot be: the source's actors
 * against a scripted destination. The source says what happened, no page is ever placed twice, and another source goes on
 * from what the destination has.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Queue } from "effect"
import { MAILBOX_CAPACITY, type SenderMessage } from "../../src/actors/Mailboxes.ts"
import * as RequestReceiver from "../../src/actors/RequestReceiver.ts"
import * as SourceSender from "../../src/actors/SourceSender.ts"
import { Bitmap } from "../../src/protocol/Bitmap.ts"
import * as QemuDialect from "../../src/protocol/qemu/QemuDialect.ts"
import * as ReturnPath from "../../src/protocol/qemu/ReturnPath.ts"
import * as Stream from "../../src/protocol/qemu/Stream.ts"
import * as StreamDecoder from "../../src/protocol/qemu/StreamDecoder.ts"
import { fromBytes } from "../../src/services/GuestMemory.ts"
import * as RateLimit from "../../src/services/RateLimit.ts"
import { pageBytes } from "../protocol/qemu/Samples.ts"
import { join } from "../protocol/Streams.ts"
import { CutLink } from "./CutLink.ts"

const PAGE = 4096

/** Pages that are not zero: few, so that every byte of them can be the last. */
const held: Readonly<Record<string, ReadonlyArray<number>>> = { "pc.ram": [1], "pc.bios": [1] }
const blocks = [
  { idstr: "pc.ram", length: 3 * PAGE, pageSize: PAGE },
  { idstr: "pc.bios", length: 2 * PAGE, pageSize: PAGE }
]
const contents = new Map(blocks.map(({ idstr, length }) => {
  const bytes = new Uint8Array(length)
  for (const page of held[idstr]!) bytes.set(pageBytes(page + length), page * PAGE)
  return [idstr, bytes]
}))
const memory = blocks.map(({ idstr, length }) => ({
  ...fromBytes(idstr, contents.get(idstr)!),
  fillByte: (offset: number) => held[idstr]!.includes(offset / PAGE) ? -1 : 0,
  length
}))

/** A source from its first page to its end. `background`: it sends what nobody asks for, too. */
const source = (link: CutLink, received?: ReadonlyArray<Bitmap>, background = true) =>
  Effect.gen(function*() {
    const dialect = QemuDialect.make({ blocks })
    const inbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
    let time = 0
    const sender = SourceSender.make({
      dialect,
      link,
      blocks: memory,
      targetPageSize: PAGE,
      background,
      rate: RateLimit.make(undefined),
      inbox,
      // Past the guest's first steps: the background does not wait.
      now: () => time += 1000,
      ...(received !== undefined && { received })
    })
    const receiver = RequestReceiver.make({
      dialect,
      link,
      blocks,
      targetPageSize: PAGE,
      server: sender,
      sender: inbox
    })
    link.attach((readable) => {
      if (readable) receiver.poll()
      sender.pump()
    })
    link.watch(true, false)
    sender.begin(receiver)
    return yield* Effect.exit(sender.run)
  })

/** What a destination has after these bytes: each page placed once, and right. */
const placed = (bytes: Uint8Array, received: ReadonlyArray<Bitmap>) => {
  const decoder = StreamDecoder.decoder({ resumed: blocks })
  decoder.push(join(Stream.resuming(), bytes))
  let one = decoder.next()
  for (; one._tag === "Message"; one = decoder.next()) {
    const item = one.message
    if (item._tag !== "Page" && item._tag !== "Zero") continue
    const page = item.address / PAGE
    const bitmap = received[blocks.findIndex(({ idstr }) => idstr === item.idstr)]!
    assert.isFalse(bitmap.test(page), `${item.idstr} ${page} is sent twice: QEMU would fail`)
    bitmap.set(page)
    const right = contents.get(item.idstr)!.subarray(item.address, item.address + PAGE)
    const got = item._tag === "Page" ? item.data : new Uint8Array(PAGE).fill(item.byte)
    assert.strictEqual(Buffer.compare(got, right), 0)
  }
  assert.notStrictEqual(one._tag, "Malformed")
  return received
}

const nothing = () => blocks.map(({ length }) => new Bitmap(length / PAGE))
const missing = (received: ReadonlyArray<Bitmap>) =>
  received.reduce((sum, { count, length }) => sum + length - count, 0)

const ending = Stream.ending()
const endsWell = (bytes: Uint8Array) =>
  bytes.length >= ending.length && Buffer.compare(bytes.subarray(bytes.length - ending.length), ending) === 0

/** A destination that takes everything, and says so. */
const whole = () =>
  new CutLink(Infinity, true, (link) => {
    if (!endsWell(link.bytes())) return
    link.say(ReturnPath.shut(0))
    link.end()
  })

const reasonOf = (exit: Exit.Exit<void, { readonly _tag: string }>) =>
  Exit.isFailure(exit)
    ? Cause.findErrorOption(exit.cause).pipe((found) => found._tag === "Some" ? found.value._tag : "?")
    : undefined

describe("a destination that goes away", () => {
  it.live(
    "at any byte of the page phase: the source says so, and another one sends the rest, each page once",
    () =>
      Effect.gen(function*() {
        const all = whole()
        assert.isTrue(Exit.isSuccess(yield* source(all)))
        assert.strictEqual(missing(placed(all.bytes(), nothing())), 0)
        for (let at = 0; at < all.length; at++) {
          const cut = new CutLink(at, true)
          // A page that is asked for overtakes the others.
          cut.say(ReturnPath.reqPages(PAGE, PAGE, "pc.bios"))
          const exit = yield* source(cut)
          assert.strictEqual(reasonOf(exit), "LinkFailed", `${at}`)
          const received = placed(cut.bytes(), nothing())
          const left = missing(received)
          const rest = whole()
          assert.isTrue(Exit.isSuccess(yield* source(rest, received)), `${at}`)
          assert.isTrue(endsWell(rest.bytes()))
          assert.strictEqual(missing(placed(rest.bytes(), received)), 0)
          assert.isTrue(left > 0 || rest.length === ending.length)
        }
      }),
    60_000
  )
})

describe("a return path that says what cannot be", () => {
  const request = ReturnPath.reqPages(PAGE, PAGE, "pc.bios")
  const u16 = (value: number) => Uint8Array.of(value >> 8, value & 255)
  const hostile: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["a type that does not exist", join(u16(7), u16(4), new Uint8Array(4))],
    ["type 0", new Uint8Array(8)],
    ["a length that is none of its type", join(u16(2), u16(5), new Uint8Array(5))],
    ["the longest length there is", join(u16(3), u16(0xffff))],
    ["a request before a block was named", ReturnPath.reqPages(0, PAGE)],
    [
      "a request that continues, behind one that does not exist",
      join(ReturnPath.reqPages(0, PAGE, "pc.rom"), ReturnPath.reqPages(0, PAGE))
    ],
    ["a block that does not exist", ReturnPath.reqPages(0, PAGE, "pc.rom")],
    ["a page behind the block", ReturnPath.reqPages(2 * PAGE, PAGE, "pc.bios")],
    ["pages that reach behind the block", ReturnPath.reqPages(PAGE, 2 * PAGE, "pc.bios")],
    ["no page at all", ReturnPath.reqPages(0, 0, "pc.bios")],
    ["half a page", ReturnPath.reqPages(PAGE / 2, PAGE, "pc.bios")],
    ["a bitmap outside a recovery", ReturnPath.recvBitmap("pc.bios", new Bitmap(2))],
    ["a bitmap of another size", ReturnPath.recvBitmap("pc.bios", new Bitmap(6400))],
    ["an acknowledgement outside a recovery", ReturnPath.resumeAck()],
    ["that it is done, before it has everything", ReturnPath.shut(0)],
    ["bytes behind its last message", join(ReturnPath.shut(0), request)]
  ]

  for (const [what, said] of hostile) {
    it.live(`${what}: refused as malformed, without the end of the stream`, () =>
      Effect.gen(function*() {
        const link = new CutLink(Infinity, false)
        link.say(said)
        const exit = yield* source(link, undefined, false)
        assert.strictEqual(reasonOf(exit), "MalformedInput")
        placed(link.bytes(), nothing())
        assert.isFalse(endsWell(link.bytes()))
      }))
  }

  it.live("that it failed: said as QEMU's failure", () =>
    Effect.gen(function*() {
      const link = new CutLink(1, false)
      link.say(ReturnPath.shut(1))
      assert.strictEqual(reasonOf(yield* source(link)), "LinkFailed")
    }))

  it.live("the same request a hundred times: each page goes once", () =>
    Effect.gen(function*() {
      const link = whole()
      link.say(join(...Array.from({ length: 100 }, () => request)))
      assert.isTrue(Exit.isSuccess(yield* source(link)))
      assert.strictEqual(missing(placed(link.bytes(), nothing())), 0)
    }))

  it.live("any one bit changed: it is refused, or nothing is sent twice and nothing left out", () =>
    Effect.gen(function*() {
      const valid = join(
        request,
        ReturnPath.reqPages(0, PAGE),
        ReturnPath.pong(4),
        ReturnPath.reqPages(0, PAGE, "pc.ram")
      )
      for (let bit = 0; bit < valid.length * 8; bit++) {
        const changed = valid.slice()
        changed[bit >> 3]! ^= 1 << (bit & 7)
        const link = whole()
        link.say(changed)
        const exit = yield* source(link)
        const left = missing(placed(link.bytes(), nothing()))
        if (Exit.isSuccess(exit)) assert.strictEqual(left, 0, `${bit}`)
        else assert.include(["MalformedInput", "LinkFailed"], reasonOf(exit), `${bit}`)
      }
    }))
})
