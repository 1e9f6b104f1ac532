/**
 * The source's two actors over a link in memory, and a scripted destination at its other end: it asks with bytes, reads
 * when it is told to, and writes down what arrived and when.
 */
import { Clock, Effect, Queue } from "effect"
import { MAILBOX_CAPACITY, type SenderMessage } from "../../src/actors/Mailboxes.ts"
import * as QuickAnswers from "../../src/actors/QuickAnswers.ts"
import * as RequestReceiver from "../../src/actors/RequestReceiver.ts"
import type { Prefault } from "../../src/actors/SourcePages.ts"
import * as SourceSender from "../../src/actors/SourceSender.ts"
import * as RamStream from "../../src/protocol/umem/RamStream.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import { umem } from "../../src/protocol/umem/UmemDialect.ts"
import { answerOver } from "../../src/services/AnswerReference.ts"
import * as BusyPoll from "../../src/services/BusyPoll.ts"
import { fromBytes, type SourceBlock } from "../../src/services/GuestMemory.ts"
import { AGAIN, type Link } from "../../src/services/Link.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import * as RateLimit from "../../src/services/RateLimit.ts"
import { PAGE } from "./Contents.ts"

export interface Arrived {
  readonly idstr: string
  readonly page: number
  readonly bytes: Uint8Array
  readonly fill: boolean
  /** Virtual milliseconds. */
  readonly at: number
}

export interface Options {
  readonly blocks: Readonly<Record<string, Uint8Array>>
  readonly background?: boolean
  readonly maxBandwidth?: number
  readonly prefault?: Prefault
  readonly firstAskMillis?: number
  readonly firstStepsMillis?: number
  readonly link?: LinkMemory.Options
  /** Answers simple requests on the quick way, as after a switchover with the addon. */
  readonly quick?: boolean
  /** Replaces the source's end of the link. */
  readonly wrap?: (link: Link) => Link
  /** What pushes pages past the sender. */
  readonly quickly?: (sender: SourceSender.SourceSender) => boolean
  /** Replaces a block as the sender reads it. */
  readonly wrapBlock?: (block: SourceBlock) => SourceBlock
}

export const make = Effect.fnUntraced(function*(options: Options) {
  const { background = true, maxBandwidth } = options
  const clock = yield* Clock.Clock
  let answeredQuickly = 0
  const blocks = Object.entries(options.blocks).map(([idstr, bytes]) => {
    const plain = fromBytes(idstr, bytes)
    const { gather } = plain
    const answer = options.quick === true && gather !== undefined ? answerOver(gather) : undefined
    const block = answer === undefined ? plain : {
      ...plain,
      answer: (...given: Parameters<typeof answer>) => {
        const n = answer(...given)
        if (n > 0) answeredQuickly += n
        return n
      }
    }
    return options.wrapBlock?.(block) ?? block
  })
  const [here, there] = yield* LinkMemory.pair(options.link)
  const link = options.wrap?.(here) ?? here
  const inbox = yield* Queue.bounded<SenderMessage>(MAILBOX_CAPACITY)
  const rate = RateLimit.make(maxBandwidth)
  const now = () => clock.currentTimeMillisUnsafe()
  const sender = SourceSender.make({
    dialect: umem,
    link,
    blocks,
    targetPageSize: PAGE,
    background,
    rate,
    inbox,
    now,
    prefault: options.prefault ?? { forward: 0, backward: 0 },
    firstAskMillis: options.firstAskMillis ?? 0,
    ...(options.firstStepsMillis !== undefined && { firstStepsMillis: options.firstStepsMillis })
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link,
    blocks,
    targetPageSize: PAGE,
    server: sender,
    sender: inbox
  })

  const quick = QuickAnswers.make({ dialect: umem, link, receiver, sender, targetPageSize: PAGE })

  const decoder = RamStream.decoder({ blocks, targetPageSize: PAGE, phase: "postcopy" })
  const requests = Request.encoder()
  const buffer = new Uint8Array(1024 * 1024)
  const arrived: Array<Arrived> = []
  const seen = { eos: 0, eosAt: -1, bytes: 0, malformed: "", end: false }
  let reading = true
  const read = () => {
    while (reading) {
      const n = there.read(buffer, 0, buffer.length)
      if (n === AGAIN || n < 0) return
      if (n === 0) {
        seen.end = true
        there.watch(false, false)
        return
      }
      seen.bytes += n
      decoder.push(buffer.subarray(0, n))
      for (let outcome = decoder.next(); outcome._tag !== "NeedMore"; outcome = decoder.next()) {
        if (outcome._tag !== "Message") {
          seen.malformed = outcome._tag === "Malformed" ? outcome.message : "end"
          return
        }
        const record = outcome.message
        const at = now()
        if (record._tag === "Eos") {
          seen.eos++
          seen.eosAt = at
        } else if (record._tag === "MemSize") seen.malformed = "a block list"
        else {
          const fill = record._tag === "Fill"
          const bytes = fill ? new Uint8Array(PAGE).fill(record.byte) : record.data.slice()
          arrived.push({ idstr: record.idstr, page: record.address / PAGE, bytes, fill, at })
        }
      }
    }
  }
  there.attach(read)
  there.watch(true, false)

  return {
    sender,
    receiver,
    rate,
    /** Pages answered on the quick way. */
    answeredQuickly: () => answeredQuickly,
    /** What the destination has got. */
    arrived,
    seen,
    /** The destination's end of the link. */
    there,
    /** The pages of a block that came, in order. */
    pagesOf: (idstr: string) => arrived.filter((one) => one.idstr === idstr).map(({ page }) => page),
    /** Begins as after the switchover; the fiber is the sender's life. */
    begin: Effect.gen(function*() {
      link.attach((readable) => {
        if (readable && ((quick(0) ?? 0) & BusyPoll.Ready.Dealt) === 0) receiver.poll()
        sender.pump()
      })
      link.watch(true, false)
      const { quickly } = options
      sender.begin(receiver, quickly && (() => quickly(sender)))
      yield* Effect.forkScoped(rate.ticks(sender.pump), { startImmediately: true })
      yield* Effect.forkScoped(sender.holds, { startImmediately: true })
      return yield* Effect.forkScoped(sender.run, { startImmediately: true })
    }),
    /** Stops or continues reading. */
    reading: (on: boolean) => {
      reading = on
      there.watch(on, false)
    },
    send: (bytes: Uint8Array) => {
      const n = there.write(bytes, 0, bytes.length)
      if (n !== bytes.length) throw new Error(`the source took ${n} of ${bytes.length} bytes`)
    },
    ask: (idstr: string, ...pages: ReadonlyArray<number>) => {
      const bytes = requests.onDemand(idstr, pages)
      there.write(bytes, 0, bytes.length)
    },
    remove: (idstr: string, ...pages: ReadonlyArray<number>) => {
      const bytes = requests.remove(idstr, pages)
      there.write(bytes, 0, bytes.length)
    },
    confirm: () => {
      there.write(Request.eoc(), 0, 1)
    }
  }
})
