/**
 * A destination that takes a guest and then asks for what it must not, or goes without confirming. The source has to end
 * in failure, and never runs its guest again.
 */
import * as Effect from "effect/Effect"
import * as Savevm from "../../src/protocol/umem/Savevm.ts"
import * as LinkIo from "../../src/services/LinkIo.ts"
import { Links } from "../../src/services/Links.ts"
import type { Random } from "./Random.ts"
import type { Scenario } from "./Scenario.ts"

export interface Options {
  readonly random: Random
  readonly scenario: Scenario
  readonly uri: string
  readonly count: (what: string) => void
}

const wrongs = [
  "an unknown command",
  "an empty name",
  "a continuation of nothing",
  "too many pages",
  "a page beyond the block",
  "an unknown block",
  "a longer name",
  "an end inside a request",
  "an end without a confirmation"
] as const

type Wrong = typeof wrongs[number]

const request = (
  cmd: number,
  name: string | undefined,
  pages: ReadonlyArray<number>,
  count = pages.length
): Uint8Array => {
  const bytes = new Uint8Array(1 + (name === undefined ? 0 : 1 + name.length) + 4 + pages.length * 8)
  const view = new DataView(bytes.buffer)
  bytes[0] = cmd
  let at = 1
  if (name !== undefined) {
    bytes[at++] = name.length
    for (const letter of name) bytes[at++] = letter.charCodeAt(0)
  }
  view.setUint32(at, count)
  for (const [i, page] of pages.entries()) view.setBigUint64(at + 4 + i * 8, BigInt(page))
  return bytes
}

const wrongly = ({ random, scenario: { blocks, targetPageSize } }: Options, wrong: Wrong): Uint8Array => {
  const { idstr, length } = random.pick(blocks)
  const pages = length / targetPageSize
  switch (wrong) {
    case "an unknown command":
      return Uint8Array.of(random.between(7, 255))
    case "an empty name":
      return request(1, "", [0])
    case "a continuation of nothing":
      return request(2, undefined, [0])
    case "too many pages":
      return request(1, idstr, [0], 4096 + random.below(1_000_000))
    case "a page beyond the block":
      return request(random.pick([1, 3, 5]), idstr, [0, pages + random.below(3)])
    case "an unknown block":
      return request(1, "nothing", [0])
    case "a longer name":
      return request(1, `${idstr}x`, [0])
    case "an end inside a request":
      return request(1, idstr, [0]).slice(0, random.between(1, 8))
    case "an end without a confirmation":
      return new Uint8Array(0)
  }
}

/** The life of such a destination; `listening` is told once. */
export const program = (options: Options, listening: () => void): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { count, random, scenario: { blocks, targetPageSize }, uri } = options
    const listener = yield* (yield* Links).listen(uri)
    listening()
    const link = yield* listener.accept
    yield* Effect.gen(function*() {
      const decoder = Savevm.decoder({ targetPageSize })
      const into = new Uint8Array(4096)
      while (true) {
        const outcome = decoder.next()
        if (outcome._tag === "Message" && outcome.message._tag === "Eof") break
        if (outcome._tag === "Message") continue
        if (outcome._tag !== "NeedMore") return
        const n = yield* LinkIo.readSome(link, into)
        if (n === 0) return
        decoder.push(into.subarray(0, n))
      }
      const wrong = random.pick(wrongs)
      count(`fault: hostile destination, ${wrong}`)
      yield* LinkIo.writeAll(link, Uint8Array.of(0))
      if (wrong !== "a continuation of nothing") {
        for (let i = random.below(4); i > 0; i--) {
          const { idstr, length } = random.pick(blocks)
          const page = random.below(length / targetPageSize)
          const cmd = random.pick([1, 1, 3, 5])
          yield* LinkIo.writeAll(link, request(cmd, idstr, [page]))
          if (cmd !== 5 && random.chance(0.5)) {
            yield* LinkIo.writeAll(link, request(random.pick([2, 4]), undefined, [0]))
          }
          yield* Effect.sleep(random.below(3))
        }
      }
      yield* LinkIo.writeAll(link, wrongly(options, wrong))
      if (wrong.startsWith("an end")) return
      while ((yield* LinkIo.readSome(link, into)) > 0);
    }).pipe(Effect.ensuring(Effect.sync(() => link.close())))
  }).pipe(Effect.scoped, Effect.ignore)
