/** A malicious destination that does not send wrong bytes, but too many of them, or none, or takes nothing. */
import { Effect, Queue } from "effect"
import { assert, describe, it } from "vitest"
import { MAILBOX_CAPACITY, type SenderMessage } from "../../src/actors/Mailboxes.ts"
import * as RequestReceiver from "../../src/actors/RequestReceiver.ts"
import * as SourceSender from "../../src/actors/SourceSender.ts"
import { umem } from "../../src/protocol/umem/UmemDialect.ts"
import { fromBytes } from "../../src/services/GuestMemory.ts"
import type { Link } from "../../src/services/Link.ts"
import * as RateLimit from "../../src/services/RateLimit.ts"
import * as Wire from "../e2e/Wire.ts"
import { collected } from "./Finding.ts"
import { Random } from "./Random.ts"
import { ScriptedLink } from "./ScriptedLink.ts"

const PAGES = 64
const block = fromBytes("pc.ram", Uint8Array.from({ length: PAGES * Wire.PAGE }, (_, i) => i * 7 + (i >> 12)))
const every = Array.from({ length: PAGES }, (_, page) => page)

/** A source after its switchover, at the other end of the link. */
const source = (link: Link) => {
  const inbox = Effect.runSync(Queue.bounded<SenderMessage>(MAILBOX_CAPACITY))
  const sender = SourceSender.make({
    dialect: umem,
    link,
    blocks: [block],
    targetPageSize: Wire.PAGE,
    background: true,
    rate: RateLimit.make(undefined),
    inbox,
    now: () => 0
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link,
    blocks: [block],
    targetPageSize: Wire.PAGE,
    server: sender,
    sender: inbox
  })
  link.attach((readable) => {
    if (readable) receiver.poll()
    sender.pump()
  })
  link.watch(true, false)
  sender.begin(receiver)
  return { receiver, sender }
}

describe("a destination that", () => {
  it("confirms, closes its half and takes nothing does not make the source run in circles", () => {
    const link = new ScriptedLink([Wire.EOC], new Random(1), "end", 0, false)
    const { receiver } = source(link)
    // At its end the link is readable for ever; the rest of the source's buffer waits for room.
    for (let turns = 0; turns < 50 && link.turn(); turns++);
    assert.isTrue(receiver.ended())
    assert.isBelow(link.spinning, 5)
    assert.deepEqual([link.reads, link.writes], [false, true])
  })

  it("asks without end does not keep the source from everything else", () => {
    let reads = 0
    const endless: Link = {
      read: (into, offset, length) => {
        into.fill(0, offset, offset + length) // INIT, INIT, INIT, …
        return ++reads > 1000 ? -11 : length
      },
      write: (_, __, length) => length,
      attach: () => {},
      watch: () => {},
      unsent: () => 0,
      unsentIsUnread: true,
      close: () => {},
      release: () => {},
      descriptor: undefined,
      peer: "the script"
    }
    const { receiver } = source(endless)
    reads = 0
    receiver.poll()
    // Each read may lead to a chunk of pages, which looks for requests again.
    assert.isBelow(reads, 100)
  })

  it("asks for the same pages a hundred thousand times and takes none costs no memory", () => {
    const all = Wire.request(1, "pc.ram", Array.from({ length: 4000 }, (_, i) => every[i % PAGES]!))
    const link = new ScriptedLink(Array.from({ length: 50 }, () => all), new Random(1), "end", 0, false)
    const { sender } = source(link)
    link.turn()
    const before = collected()
    for (let turns = 0; turns < 100_000 && link.turn(); turns++);
    assert.isBelow(collected() - before, 2 ** 19)
    assert.strictEqual(sender.progress().onDemand + sender.progress().background <= PAGES, true)
  })
})
