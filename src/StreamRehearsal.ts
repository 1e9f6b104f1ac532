/**
 * A guest's stream up to its switchover, written and read once within this process: what both sides do between the
 * guest's last step and its first. See `Rehearsal` for why.
 */
import * as Effect from "effect/Effect"
import { closing, opening } from "./protocol/umem/GuestStream.ts"
import * as Savevm from "./protocol/umem/Savevm.ts"
import * as LinkIo from "./services/LinkIo.ts"
import * as LinkMemory from "./services/LinkMemory.ts"

const PAGE = 4096
const STATE = new Uint8Array(64)
const MOST_MILLIS = 100

/** Completes when the switchover's byte was read. */
const stream = Effect.gen(function*() {
  const [source, destination] = yield* LinkMemory.pair()
  const block = { idstr: "rehearsal", length: PAGE }
  for (const bytes of [opening([block]), closing(STATE), Savevm.eof()]) yield* LinkIo.writeAll(source, bytes)
  const decoder = Savevm.decoder({ targetPageSize: PAGE, refuseBlock: () => undefined })
  const buffer = new Uint8Array(PAGE)
  while (true) {
    const outcome = decoder.next()
    if (outcome._tag === "NeedMore") {
      const n = yield* LinkIo.readSome(destination, buffer)
      if (n === 0) return
      decoder.push(buffer.subarray(0, n))
    } else if (outcome._tag !== "Message" || outcome.message._tag === "Eof") break
  }
  yield* LinkIo.drained(source, MOST_MILLIS)
  yield* LinkIo.unobjected(source)
})

/** Bounded, and without consequences. */
export const rehearseStream: Effect.Effect<void> = stream.pipe(
  Effect.scoped,
  Effect.timeoutOption(MOST_MILLIS),
  Effect.ignoreCause
)
