/**
 * The source after its switchover under a malicious destination: both of its actors over a scripted link. Whatever is
 * asked for, it ends: confirmed, or with the reason why not; it sends every page at most once and rightly, only what may
 * be sent, one EOS, and nothing behind it.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import { MAILBOX_CAPACITY, type SenderMessage } from "../../src/actors/Mailboxes.ts"
import * as QuickAnswers from "../../src/actors/QuickAnswers.ts"
import * as RequestReceiver from "../../src/actors/RequestReceiver.ts"
import * as SourceSender from "../../src/actors/SourceSender.ts"
import { umem } from "../../src/protocol/umem/UmemDialect.ts"
import { answerOver } from "../../src/services/AnswerReference.ts"
import { fromBytes } from "../../src/services/GuestMemory.ts"
import * as RateLimit from "../../src/services/RateLimit.ts"
import { type Finding, inUse, same, since } from "./Finding.ts"
import { mutated, pieces } from "./Mutation.ts"
import type { Random } from "./Random.ts"
import * as Reference from "./Reference.ts"
import { ScriptedLink } from "./ScriptedLink.ts"
import { blocks, small, SMALL_PAGE } from "./Streams.ts"

/** A read of requests, its decoder, and the sender's buffer of a chunk asked for. */
const WINDOW = 2 * 32 * 1024 + 64 * 1024
const MANY_TURNS = 10_000
const totalPages = blocks.reduce((sum, { length }) => sum + length / SMALL_PAGE, 0)

/** Every fourth page is uniform; no two others are alike. */
const memory = blocks.map(({ idstr, length }, block) => {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; at++) {
    const page = Math.floor(at / SMALL_PAGE)
    bytes[at] = page % 4 === 3 ? page : at * 7 + page * 13 + block
  }
  const plain = fromBytes(idstr, bytes)
  return { ...plain, answer: answerOver(plain.gather!) }
})

const pageOf = (idstr: string, page: number): Uint8Array => {
  const bytes = new Uint8Array(SMALL_PAGE)
  memory.find((block) => block.idstr === idstr)!.read(page * SMALL_PAGE, bytes, 0, SMALL_PAGE)
  return bytes
}

export const fuzz = async (random: Random): Promise<Finding> => {
  const bytes = mutated(small.requests(random), random)
  const background = random.oneIn(2)
  const quickly = random.oneIn(2)
  const link = new ScriptedLink(
    pieces(bytes, random),
    random,
    random.oneIn(2) ? "end" : "reset",
    random.oneIn(4) ? random.below(2000) : Infinity
  )
  const before = inUse()
  const inbox = Effect.runSync(Queue.bounded<SenderMessage>(MAILBOX_CAPACITY))
  let time = 0
  const sender = SourceSender.make({
    dialect: umem,
    link,
    blocks: memory,
    targetPageSize: SMALL_PAGE,
    background,
    rate: RateLimit.make(undefined),
    inbox,
    // Past the guest's first steps, so that background pages are not held back by a clock that does not run.
    now: () => time += 1000
  })
  const receiver = RequestReceiver.make({
    dialect: umem,
    link,
    blocks,
    targetPageSize: SMALL_PAGE,
    server: sender,
    sender: inbox
  })
  // As after the switchover.
  const quick = QuickAnswers.make({ dialect: umem, link, receiver, sender, targetPageSize: SMALL_PAGE })
  link.attach((readable) => {
    if (readable && (!quickly || (quick(0) ?? 0) === 0)) receiver.poll()
    sender.pump()
  })
  link.watch(true, false)
  sender.begin(receiver)
  const fiber = Effect.runFork(sender.run)
  let idle = 0
  for (let turns = 0; fiber.pollUnsafe() === undefined; turns++) {
    same(turns < MANY_TURNS, true, "the source does not end")
    same(link.spinning < 100, true, "the source is called again and again, and does nothing")
    const busy = link.turn()
    if (busy && turns % 16 !== 0) continue
    // The fiber gets its turn. A destination that does not read is waited for as long as it likes.
    await new Promise(setImmediate)
    if (!busy && ++idle > 3) link.makeRoom()
  }
  const exit = fiber.pollUnsafe()!
  const allocated = since(before)

  const asked = Reference.requests(bytes, blocks, SMALL_PAGE)
  const confirmed = asked.messages.at(-1)?.cmd === 6 || asked.messages.some(({ cmd }) => cmd === 6)
  const sent = Reference.pageStream(Buffer.concat(link.taken), blocks, SMALL_PAGE)
  same(sent.verdict !== "malformed", true, "a record that no destination takes")
  const wanted = new Set(
    asked.messages.flatMap(({ cmd, idstr, pages }) => cmd === 5 ? [] : pages.map((page) => `${idstr} ${page}`))
  )
  const once = new Set<string>()
  let eos = 0
  for (const record of sent.messages) {
    same(eos, 0, "a record behind EOS")
    if (record.kind === "eos") eos++
    if (record.kind !== "page" && record.kind !== "fill") continue
    const key = `${record.idstr} ${record.page}`
    same(once.has(key), false, "a page sent twice")
    once.add(key)
    if (!background) same(wanted.has(key), true, "a page that was not asked for")
    const right = pageOf(record.idstr, record.page)
    const got = record.kind === "page" ? record.data : new Uint8Array(SMALL_PAGE).fill(record.byte)
    same(Buffer.compare(got, right), 0, "another page than the guest's")
  }
  same(once.size <= totalPages, true, "more pages than there are")
  if (Exit.isSuccess(exit)) {
    same(confirmed, true, "completed without a confirmation")
    same(eos, 1, "completed without EOS")
    return { outcome: "send: confirmed", allocated, window: WINDOW }
  }
  const error = exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error
  if (error === undefined) throw new Error(`the source died: ${JSON.stringify(exit.cause.reasons)}`)
  return { outcome: `send: ${error._tag} ${"detail" in error ? error.detail : ""}`, allocated, window: WINDOW }
}
