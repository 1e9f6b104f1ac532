/**
 * A restore of a few pages to nobody. Code that has never run costs milliseconds where a guest waits for
 * microseconds, so the actors run once before the connection is made.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { MAILBOX_CAPACITY, type SenderMessage } from "../actors/Mailboxes.ts"
import * as RequestReceiver from "../actors/RequestReceiver.ts"
import * as SourceSender from "../actors/SourceSender.ts"
import * as Binding from "../native/Binding.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import * as QemuDialect from "../protocol/qemu/QemuDialect.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import type { SourceBlock } from "../services/GuestMemory.ts"
import type { Link } from "../services/Link.ts"
import * as LinkMemory from "../services/LinkMemory.ts"
import * as NativeLink from "../services/NativeLink.ts"
import * as RateLimit from "../services/RateLimit.ts"

/** Enough that the hot functions have run a few hundred times, few enough to take some ten milliseconds. */
const PAGES = 512
/** Behind the guest's first steps, by the sender's clock: the background waits no more. Milliseconds. */
const LATER = 1_000

/** Over the kernel where that is possible: a system call that was never made costs more than one that was. */
const links: Effect.Effect<readonly [Link, Link], never, Scope.Scope> = Effect.suspend(() => {
  const addon = Binding.load()
  if (addon === undefined) return LinkMemory.pair()
  return Effect.acquireRelease(
    Effect.sync(() => {
      const [here, there] = addon.socketpair(addon.constants.SOCK_STREAM)
      return [
        NativeLink.fromDescriptor(addon, here, "rehearsal"),
        NativeLink.fromDescriptor(addon, there, "rehearsal")
      ] as const
    }),
    (pair) => Effect.sync(() => pair.forEach((link) => link.close()))
  )
})

const rehearsal = (real: SourceBlock) =>
  Effect.gen(function*() {
    const [here, there] = yield* links
    const length = Math.min(PAGES * TARGET_PAGE_SIZE, real.length)
    // Pages of the real block: reading through the mapping is what is to be warm.
    const block: SourceBlock = { ...real, idstr: "rehearsal", length, hostPageSize: TARGET_PAGE_SIZE }
    let time = 0
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
      now: () => time
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
    // A half as a guest asks for them, the others in the background.
    for (let page = 0; page < length / TARGET_PAGE_SIZE; page += 2) {
      const request = ReturnPath.reqPages(
        page * TARGET_PAGE_SIZE,
        TARGET_PAGE_SIZE,
        page === 0 ? block.idstr : undefined
      )
      there.write(request, 0, request.length)
      receiver.poll()
      drain()
    }
    time = LATER
    sender.sendRest()
    for (let turn = 0; turn < PAGES && (sender.progress().dirty > 0 || sender.waitsForLink()); turn++) {
      drain()
      sender.pump()
    }
    drain()
    const last = ReturnPath.shut(0)
    there.write(last, 0, last.length)
    receiver.poll()
    yield* sender.run
  })

/** Bounded, and without consequences: a rehearsal that fails changes nothing. */
export const rehearse = (block: SourceBlock): Effect.Effect<void> =>
  rehearsal(block).pipe(Effect.scoped, Effect.timeoutOption("1 second"), Effect.ignoreCause)
