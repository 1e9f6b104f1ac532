/** The guest's side of the daemon channel: what it hears while it is busy with something that may never end. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Queue } from "effect"
import * as Channel from "../../src/actors/Channel.ts"
import * as DestinationHandler from "../../src/actors/DestinationHandler.ts"
import { type HandlerMessage, MAILBOX_CAPACITY } from "../../src/actors/Mailboxes.ts"
import * as PipeMessages from "../../src/actors/PipeMessages.ts"
import { DaemonFailed } from "../../src/MigrationError.ts"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import { ended, settle, until } from "./Turns.ts"

const make = Effect.fnUntraced(function*(prefault: Effect.Effect<void>, capacity = 64 * 1024) {
  const inbox = yield* Queue.bounded<HandlerMessage>(MAILBOX_CAPACITY)
  const [here, daemon] = yield* LinkMemory.pair({ capacity })
  const channel = Channel.make<HandlerMessage>({
    link: here,
    from: "daemon",
    mailbox: inbox,
    toMessage: PipeMessages.toHandler,
    ended: (detail) => ({ _tag: "ChannelClosed", detail })
  })
  const handler = yield* DestinationHandler.run({
    inbox,
    channel,
    hostPages: (_idstr, offset) => Float64Array.of(offset),
    prefault: () => prefault,
    daemonError: () => new DaemonFailed({ detail: "it gave up" })
  }).pipe(Effect.forkScoped({ startImmediately: true }))
  return { channel, daemon, handler, inbox, say: (bytes: Uint8Array) => daemon.write(bytes, 0, bytes.length) }
})

describe("the guest's side", () => {
  it.effect("B49: takes the daemon's ERROR for its own failure, with what the daemon could say", () =>
    Effect.gen(function*() {
      const { handler, say } = yield* make(Effect.void)
      say(Pipe.triggerPageFault([3]))
      say(Pipe.error())
      assert.strictEqual(((yield* Effect.flip(ended(handler))) as DaemonFailed).detail, "it gave up")
    }))

  it.effect("B47: takes the end of the channel without QUIT for a failure, and with it for none", () =>
    Effect.gen(function*() {
      const lost = yield* make(Effect.void)
      lost.daemon.close()
      assert.strictEqual((yield* Effect.flip(ended(lost.handler)))._tag, "DaemonFailed")
      const left = yield* make(Effect.void)
      left.say(Pipe.quit("daemon"))
      left.daemon.close()
      yield* ended(left.handler)
    }))

  it.effect("B66: hears that the daemon gave up while a touch of its pages waits for ever", () =>
    Effect.gen(function*() {
      const { handler, say } = yield* make(Effect.never)
      say(Pipe.triggerPageFault([3]))
      yield* settle
      say(Pipe.error())
      const error = yield* Effect.flip(ended(handler))
      assert.strictEqual((error as DaemonFailed).detail, "it gave up")
    }))

  it.effect("B47: hears that the daemon is gone while a touch of its pages waits for ever", () =>
    Effect.gen(function*() {
      const { daemon, handler, say } = yield* make(Effect.never)
      say(Pipe.triggerPageFault([3]))
      yield* settle
      daemon.close()
      assert.strictEqual((yield* Effect.flip(ended(handler)))._tag, "DaemonFailed")
    }))

  it.effect("B60: answers QUIT while a touch waits, and says nothing of that page any more", () =>
    Effect.gen(function*() {
      const { daemon, handler, say } = yield* make(Effect.never)
      say(Pipe.triggerPageFault([3]))
      yield* settle
      say(Pipe.quit("daemon"))
      yield* Fiber.join(handler)
      const into = new Uint8Array(100)
      assert.deepStrictEqual(into.slice(0, daemon.read(into, 0, 100)), Pipe.quit("guest"))
    }))

  it.effect("writes each message whole, though notices and answers are said at once and the channel takes a few bytes", () =>
    Effect.gen(function*() {
      const { daemon, inbox } = yield* make(Effect.void, 7)
      const decoder = Pipe.decoder({ from: "guest" })
      const heard: Array<string> = []
      const into = new Uint8Array(100)
      daemon.attach(() => {
        for (let n = daemon.read(into, 0, 100); n > 0; n = daemon.read(into, 0, 100)) decoder.push(into.subarray(0, n))
        for (let outcome = decoder.next(); outcome._tag !== "NeedMore"; outcome = decoder.next()) {
          assert.strictEqual(outcome._tag, "Message")
          if (outcome._tag === "Message") heard.push(outcome.message._tag)
        }
      })
      daemon.watch(true, false)
      for (let i = 0; i < 20; i++) {
        Queue.offerUnsafe(inbox, { _tag: "TriggerPageFault", pages: Float64Array.of(i) })
        Queue.offerUnsafe(inbox, { _tag: "Discarded", idstr: "ram", offset: i, length: 1 })
      }
      yield* until("all of it", () => heard.length === 40)
      assert.strictEqual(heard.filter((tag) => tag === "PageFaulted").length, 20)
    }))
})
