/**
 * A restore of a few pages over links in memory. Code that has never run costs milliseconds where a guest waits for
 * microseconds, so the actors run once before the connection is made.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { MAILBOX_CAPACITY, type SenderMessage } from "../actors/Mailboxes.ts"
import * as RequestReceiver from "../actors/RequestReceiver.ts"
import * as SourceSender from "../actors/SourceSender.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import * as QemuDialect from "../protocol/qemu/QemuDialect.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import * as LinkMemory from "../services/LinkMemory.ts"
import * as RateLimit from "../services/RateLimit.ts"

/** Enough that the hot functions have run a few hundred times, few enough to take some ten milliseconds. */
const PAGES = 512

const rehearsal = (real: SourceBlock) =>
  Effect.gen(function*() {
    const [here, there] = yield* LinkMemory.pair()
    const length = PAGES * TARGET_PAGE_SIZE
    // Pages of the real block where it has them: reading through the mapping is what is to be warm.
    const block: SourceBlock = {
      idstr: "rehearsal",
      length,
      fillByte: (offset) => real.fillByte(offset % real.length, TARGET_PAGE_SIZE),
      read: (offset, into, at, n) => real.read(offset % real.length, into, at, n)
    }
    const blocks = [{ idstr: block.idstr, length, pageSize: TARGET_PAGE_SIZE }]
    const dialect = QemuDialect.make({ blocks })
    const inbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
    const sender = SourceSender.make({
      dialect,
      link: here,
      blocks: [block],
      targetPageSize: TARGET_PAGE_SIZE,
      background: false,
      rate: RateLimit.make(undefined),
      inbox,
      now: () => 0
    })
    const receiver = RequestReceiver.make({
      dialect,
      link: here,
      blocks: [block],
      targetPageSize: TARGET_PAGE_SIZE,
      server: sender,
      sender: inbox
    })
    here.attach(() => {
      receiver.poll()
      sender.pump()
    })
    here.watch(true, false)
    sender.begin(receiver)
    const sink = new Uint8Array(64 * 1024)
    const drain = () => {
      while (there.read(sink, 0, sink.length) > 0);
    }
    for (let page = 0; page < PAGES; page++) {
      const request = ReturnPath.reqPages(
        page * TARGET_PAGE_SIZE,
        TARGET_PAGE_SIZE,
        page === 0 ? block.idstr : undefined
      )
      there.write(request, 0, request.length)
      receiver.poll()
      drain()
    }
    sender.sendRest()
    drain()
    const last = ReturnPath.shut(0)
    there.write(last, 0, last.length)
    receiver.poll()
    yield* sender.run
  })

/** Bounded, and without consequences: a rehearsal that fails changes nothing. */
export const rehearse = (block: SourceBlock): Effect.Effect<void> =>
  rehearsal(block).pipe(Effect.timeoutOption("1 second"), Effect.ignoreCause)
