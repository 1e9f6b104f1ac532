/**
 * A source that speaks the protocol up to a point: the guest's real memory, in records of its own making, some of them
 * twice with other contents, and among them one that must not be. The destination has to say so; it may not take the
 * record for anything else, and of a page that comes twice the first is the page.
 */
import * as Effect from "effect/Effect"
import * as Savevm from "../../src/protocol/umem/Savevm.ts"
import type { Link } from "../../src/services/Link.ts"
import * as LinkIo from "../../src/services/LinkIo.ts"
import { Links } from "../../src/services/Links.ts"
import { draw, type History } from "./History.ts"
import type { Kernel, Waiter } from "./Kernel.ts"
import type { Random } from "./Random.ts"
import type { Scenario } from "./Scenario.ts"

export interface Options {
  readonly random: Random
  readonly scenario: Scenario
  readonly history: History
  readonly kernel: Kernel
  readonly uri: string
  readonly state: Uint8Array
  readonly count: (what: string) => void
}

/** What is wrong; `twice` is not. */
const wrongs = [
  "neither page nor fill",
  "both page and fill",
  "an unknown flag",
  "beyond the block",
  "a block list",
  "an EOS with an offset",
  "an early EOS",
  "an unknown block",
  "a prefix of a block",
  "an empty name",
  "an end inside a record",
  "twice"
] as const

export type Wrong = typeof wrongs[number]

const FLAG = { fill: 0x02, list: 0x04, page: 0x08, eos: 0x10, more: 0x20, unknown: 0x40 }

/** A record: its word, a name unless it continues, what follows. */
const record = (offset: number, flags: number, name: string | undefined, payload: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(8 + (name === undefined ? 0 : 1 + name.length) + payload.length)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, BigInt(offset) | BigInt(flags | (name === undefined ? FLAG.more : 0)))
  let at = 8
  if (name !== undefined) {
    bytes[at++] = name.length
    for (const letter of name) bytes[at++] = letter.charCodeAt(0)
  }
  bytes.set(payload, at)
  return bytes
}

/** The bytes before the switchover, and its byte. */
const opening = ({ scenario: { blocks }, state }: Options): Uint8Array =>
  Savevm.concat([
    Savevm.header(),
    Savevm.start({ sectionId: 1, name: "ram", instance: 0, version: 4 }),
    Savevm.ramSizes(blocks),
    Savevm.part(1),
    Savevm.ramEnd(),
    Savevm.end(1),
    Savevm.ramEnd(),
    Savevm.full({ sectionId: 2, name: "guest", instance: 0, version: 1 }),
    Savevm.guestState(state),
    Savevm.eof()
  ])

/** Fills the guest's memory as a guest would have that ran here. */
const populate = ({ history, kernel, random }: Options) => {
  const waiter: Waiter = { waiting: false }
  for (const [i, block] of kernel.blocks.entries()) {
    for (let page = 0; page < block.pages.length; page++) {
      if (random.chance(0.2)) continue
      const { data, offset } = draw(
        random,
        kernel.pageSize,
        Math.min(kernel.pageSize, block.length - page * kernel.pageSize)
      )
      kernel.touch(block, page, waiter)!.set(data, offset)
      history.write(i, page, offset, data)
    }
  }
}

/** What is wrong in the run of this seed. */
export const wrongOf = (random: Random): Wrong => random.pick(wrongs)

const eos = () => record(0, FLAG.eos, "", new Uint8Array(0)).slice(0, 8)

/** The page stream, with what is wrong somewhere in it but after its last page. */
const stream = ({ history, random, scenario }: Options, wrong: Wrong): Array<Uint8Array> => {
  const size = scenario.targetPageSize
  const pages = scenario.blocks.flatMap((block, i) =>
    Array.from({ length: block.length / size }, (_, page) => ({ block, i, offset: page * size }))
  )
  for (let i = pages.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    ;[pages[i], pages[j]] = [pages[j]!, pages[i]!]
  }
  const at = random.below(pages.length)
  const records: Array<Uint8Array> = []
  let last: string | undefined
  for (const [n, { block, i, offset }] of pages.entries()) {
    const { idstr, length } = block
    const name = () => idstr === last && random.chance(0.8) ? undefined : idstr
    const bytes = history.blocks[i]!.bytes.slice(offset, offset + size)
    const page = () => record(offset, FLAG.page, name(), bytes)
    if (n === at) {
      const wrongly = (flags: number, payload: Uint8Array, where = offset, who = name()) =>
        records.push(record(where, flags, who, payload))
      switch (wrong) {
        case "neither page nor fill":
          wrongly(0, new Uint8Array(0))
          break
        case "both page and fill":
          wrongly(FLAG.page | FLAG.fill, bytes)
          break
        case "an unknown flag":
          wrongly(FLAG.page | FLAG.unknown, bytes)
          break
        case "beyond the block":
          if (random.chance(0.5)) wrongly(FLAG.page, new Uint8Array(size).fill(0x5a), length + random.below(4) * size)
          else wrongly(FLAG.fill, Uint8Array.of(0x5a), length + random.below(4) * size)
          break
        case "a block list":
          wrongly(FLAG.list, new Uint8Array(0), size)
          break
        case "an EOS with an offset":
          records.push(record(size, FLAG.eos, "", new Uint8Array(0)).slice(0, 8))
          break
        case "an early EOS":
          records.push(eos())
          break
        case "an unknown block":
          wrongly(FLAG.page, bytes, offset, "nothing")
          break
        case "a prefix of a block":
          wrongly(FLAG.page, bytes, offset, `${idstr}x`)
          break
        case "an empty name":
          wrongly(FLAG.page, bytes, offset, "")
          break
        case "an end inside a record":
          records.push(page().slice(0, random.between(1, 8 + size)))
          return records
        case "twice":
          break
      }
    }
    const first = bytes[0]!
    const uniform = bytes.every((byte) => byte === first)
    records.push(uniform && random.chance(0.8) ? record(offset, FLAG.fill, name(), bytes.subarray(0, 1)) : page())
    last = idstr
    if (wrong === "twice" && random.chance(0.4)) {
      records.push(record(offset, FLAG.page, name(), bytes.map((byte) => byte ^ 0xff)))
    }
  }
  records.push(eos())
  return records
}

/** Reads and forgets what comes, until it ends. */
const forget = (link: Link) =>
  Effect.gen(function*() {
    const into = new Uint8Array(4096)
    while ((yield* LinkIo.readSome(link, into)) > 0);
  })

/** The life of such a source. */
export const program = (options: Options, wrong: Wrong): Effect.Effect<void> =>
  Effect.gen(function*() {
    populate(options)
    const link = yield* (yield* Links).connect(options.uri)
    yield* Effect.gen(function*() {
      options.count(wrong === "twice" ? "peer: pages twice" : `fault: hostile source, ${wrong}`)
      yield* LinkIo.writeAll(link, opening(options))
      for (const bytes of stream(options, wrong)) yield* LinkIo.writeAll(link, bytes)
      if (wrong !== "an end inside a record") yield* forget(link)
    }).pipe(Effect.ensuring(Effect.sync(() => link.close())))
  }).pipe(Effect.ignore)
