/**
 * The source's quick way: requests of the simple kind are answered by one call, without a step of JavaScript between
 * request and page, and the same call pushes pages that nobody asked for as long as nobody asks; the sender hears of it
 * afterwards. What that call cannot do comes back as it was and goes the ordinary way.
 *
 * Hot path: no Effect per page.
 */
import type { Dialect } from "../protocol/Dialect.ts"
import type { Link } from "../services/Link.ts"
import * as PageExchange from "../services/PageExchange.ts"
import type { RequestReceiver } from "./RequestReceiver.ts"
import type { SourceSender } from "./SourceSender.ts"

export interface Options {
  readonly link: Link
  readonly receiver: RequestReceiver
  readonly sender: SourceSender
  readonly dialect: Dialect
  readonly targetPageSize: number
}

const { Answer } = PageExchange
/** Bytes read at once: some requests of some pages. */
const INPUT_BYTES = 4096
/**
 * Bytes that the destination may not have read before more is pushed while the guest asks for page after page: each of them
 * waits behind these, and the guest's thread for a CPU that nobody needs meanwhile. Only a source that does not sleep
 * refills them in time, and only over a link that tells what was read.
 */
const MOST_UNREAD = 4 * 1024
/** Larger pages go the ordinary way. */
const MOST_PAGE_BYTES = 64 * 1024

/** Waits at most so many nanoseconds; {@link PageExchange.Came} as bits, or `undefined` when this is no time for it. */
export type QuickAnswers = (nanos: number) => number | undefined

export const make = ({ dialect, link, receiver, sender, targetPageSize }: Options): QuickAnswers => {
  const { simple } = dialect
  if (simple?.command === undefined || targetPageSize > MOST_PAGE_BYTES) return () => undefined
  const plan = new Float64Array(Answer.words + PageExchange.LOG_WORDS * PageExchange.LOG_ENTRIES)
  const input = new Uint8Array(INPUT_BYTES)
  const output = new Uint8Array(sender.answerBytes)
  plan[Answer.pageSize] = targetPageSize
  plan[Answer.pageFlags] = simple.pageFlags
  plan[Answer.fillFlags] = simple.fillFlags
  plan[Answer.command] = simple.command

  return (nanos) => {
    const state = sender.answering()
    if (state?.block.answer === undefined || !receiver.open()) return undefined
    const pages = state.dirty.length
    const answers = receiver.continuing() === state.block.idstr
    const cursor = sender.pushing(state)
    if (!answers && cursor === pages) return undefined
    plan[Answer.pages] = pages
    plan[Answer.nanos] = nanos
    plan[Answer.cursor] = cursor
    plan[Answer.answers] = answers ? 1 : 0
    plan[Answer.unread] = nanos > 0 && link.unsentIsUnread ? MOST_UNREAD : 0
    const answered = state.block.answer(link, plan, state.dirty.bytes, input, output)
    if (answered < 0) return undefined
    const unhandled = plan[Answer.unhandled]!
    receiver.passed(plan[Answer.bytesIn]!)
    if (answered > 0) {
      sender.answered(state, plan, answered, output.subarray(plan[Answer.pendingAt]!, plan[Answer.pendingEnd]!))
    }
    if (unhandled > 0) receiver.take(input.subarray(0, unhandled))
    return (answered + unhandled + plan[Answer.full]! > 0 ? PageExchange.Came.Something : PageExchange.Came.Nothing) |
      (plan[Answer.contended] === 1 ? PageExchange.Came.Contended : 0)
  }
}
