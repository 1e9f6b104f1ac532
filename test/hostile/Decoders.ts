/**
 * Every decoder under hostile input. It must not throw, must end, must say the same whatever pieces the bytes come in,
 * must refuse a word as soon as that is there, and must agree with the reference on what it takes and what it refuses.
 */
import type { Decoder, Outcome } from "../../src/protocol/Decoder.ts"
import * as BitmapList from "../../src/protocol/umem/BitmapList.ts"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import * as RamStream from "../../src/protocol/umem/RamStream.ts"
import * as RequestDecoder from "../../src/protocol/umem/RequestDecoder.ts"
import * as SavevmDecoder from "../../src/protocol/umem/SavevmDecoder.ts"
import { type Finding, inUse, same, since } from "./Finding.ts"
import { mutated, pieces } from "./Mutation.ts"
import type { Random } from "./Random.ts"
import * as Reference from "./Reference.ts"
import { blocks, type Format, MAX_GUEST_STATE, small, SMALL_PAGE } from "./Streams.ts"

const targetPageSize = SMALL_PAGE

interface Decoded {
  /** Each message in one line, and what came last. */
  readonly said: string
  readonly verdict: Reference.Verdict | "open"
  readonly problem: string
}

/** While what is allocated is measured, messages are not described: that would be most of it. */
let mute = false

/** The last decoder: alive when what is kept is measured. */
let kept: Decoder<unknown> | undefined

const digest = (bytes: Uint8Array): string => `${bytes.length}:${bytes.reduce((sum, byte) => (sum * 31 + byte) | 0, 7)}`

const ramLine = (record: RamStream.RamRecord): string => {
  switch (record._tag) {
    case "Page":
      return `page ${record.idstr} ${record.address / SMALL_PAGE} ${digest(record.data)}`
    case "Fill":
      return `fill ${record.idstr} ${record.address / SMALL_PAGE} ${record.byte}`
    case "MemSize":
      return `sizes ${record.blocks.map(({ idstr }) => idstr).join()}`
    case "Eos":
      return "eos"
  }
}

const referenceRamLine = (record: Reference.Record): string => {
  switch (record.kind) {
    case "page":
      return `page ${record.idstr} ${record.page} ${digest(record.data)}`
    case "fill":
      return `fill ${record.idstr} ${record.page} ${record.byte}`
    case "sizes":
      return `sizes ${record.blocks.map(({ idstr }) => idstr).join()}`
    case "eos":
      return "eos"
  }
}

/** Feeds the pieces; `finish` or not. The number of answers is bounded by the bytes: more is a decoder that never ends. */
const decode = <A>(
  decoder: Decoder<A>,
  input: ReadonlyArray<Uint8Array>,
  finish: boolean,
  describe: (message: A) => string
): Decoded => {
  kept = decoder
  const line = mute ? () => "" : describe
  const messages: Array<string> = []
  let budget = 64
  const drain = (): Exclude<Outcome<A>, { _tag: "Message" }> => {
    while (true) {
      const outcome = decoder.next()
      if (outcome._tag !== "Message") return outcome
      messages.push(line(outcome.message))
      same(--budget >= 0, true, "it gives messages without consuming bytes")
    }
  }
  let last = drain()
  for (const piece of input) {
    budget += piece.length
    decoder.push(piece)
    last = drain()
  }
  if (finish) {
    decoder.finish()
    last = drain()
    same(decoder.next(), last, "a last answer that does not stay")
  }
  const verdict = last._tag === "NeedMore"
    ? "open"
    : last._tag === "End"
    ? "end"
    : last.truncated
    ? "truncated"
    : "malformed"
  return { said: [...messages, verdict].join("\n"), verdict, problem: last._tag === "Malformed" ? last.message : "" }
}

interface Target {
  readonly decode: (input: ReadonlyArray<Uint8Array>, finish: boolean) => Decoded
  readonly reference: (bytes: Uint8Array) => Omit<Decoded, "problem">
}

const lines = <A>({ messages, verdict }: Reference.Parsed<A>, line: (message: A) => string) => ({
  said: [...messages.map(line), verdict].join("\n"),
  verdict
})

const pipeByte = (message: Pipe.PipeMessage): string => {
  const byte = { Ready: "r", Quit: "q", Error: "e", TriggerPageFault: "t", PageFaulted: "t", PageUnmapped: "u" }[
    message._tag
  ]
  return message.from === "daemon" ? byte.toUpperCase() : byte
}

/** The decoder of bitmap lists is a function of all bytes so far; here it is as the others are. */
const bitmapList = (): Decoder<string> => {
  let bytes: Uint8Array = new Uint8Array(0)
  let finished = false
  let given = false
  let final: Outcome<string> | undefined
  return {
    push: (more) => {
      bytes = Buffer.concat([bytes, more])
    },
    finish: () => {
      finished = true
    },
    remainder: () => bytes,
    next: () => {
      if (given) return final ??= { _tag: "End" }
      const outcome = BitmapList.decode(bytes, finished)
      given = outcome._tag === "Message"
      if (outcome._tag === "Malformed" || outcome._tag === "End") return final ??= outcome
      return outcome
    }
  }
}

const targets: Record<Exclude<Format, "pipe">, Target> = {
  request: {
    decode: (input, finish) =>
      decode(
        RequestDecoder.decoder({ blocks, targetPageSize }),
        input,
        finish,
        (message) => `${message.cmd} ${"idstr" in message ? `${message.idstr} ${message.pages.join()}` : " "}`
      ),
    reference: (bytes) =>
      lines(
        Reference.requests(bytes, blocks, SMALL_PAGE),
        ({ cmd, idstr, pages }) => `${cmd} ${idstr} ${pages.join()}`
      )
  },
  ram: {
    decode: (input, finish) =>
      decode(RamStream.decoder({ blocks, targetPageSize, phase: "postcopy" }), input, finish, ramLine),
    reference: (bytes) => lines(Reference.pageStream(bytes, blocks, SMALL_PAGE), referenceRamLine)
  },
  section: {
    decode: (input, finish) =>
      decode(RamStream.decoder({ blocks, targetPageSize, phase: "section" }), input, finish, ramLine),
    reference: (bytes) => lines(Reference.section(bytes, blocks, SMALL_PAGE), referenceRamLine)
  },
  savevm: {
    decode: (input, finish) =>
      decode(
        SavevmDecoder.decoder({ blocks, targetPageSize, maxGuestState: MAX_GUEST_STATE }),
        input,
        finish,
        (message) => {
          switch (message._tag) {
            case "Ram":
              return message.record._tag === "MemSize" ? "sizes" : message.record._tag.toLowerCase()
            case "Device":
              return `${message.name} ${digest(message.data)}`
            default:
              return message._tag.toLowerCase()
          }
        }
      ),
    reference: (bytes) =>
      lines(
        Reference.savevm(bytes, blocks, SMALL_PAGE, MAX_GUEST_STATE),
        ({ data, kind }) => data === undefined ? kind : `${kind} ${digest(data)}`
      )
  },
  bitmapList: {
    decode: (input, finish) => decode(bitmapList(), input, finish, String),
    reference: (bytes) => {
      const wrong = bytes.subarray(0, 25).some((byte) => byte !== 0)
      if (wrong) return { said: "malformed", verdict: "malformed" }
      if (bytes.length >= 25) return { said: "Terminator\nend", verdict: "end" }
      return bytes.length === 0 ? { said: "end", verdict: "end" } : { said: "truncated", verdict: "truncated" }
    }
  }
}

const pipeOf = (from: "daemon" | "guest"): Target => ({
  decode: (input, finish) =>
    decode(
      Pipe.decoder({ from }),
      input,
      finish,
      (message) => `${pipeByte(message)} ${"pages" in message ? (message.exactPages ?? message.pages).join() : ""}`
    ),
  reference: (bytes) => lines(Reference.pipe(bytes, from), ({ byte, pages }) => `${byte} ${pages.join()}`)
})

/** One input of one format; what it came to. */
export const fuzz = (format: Format, random: Random): Finding => {
  const bytes = mutated(small.stream(format, random), random)
  const target = format !== "pipe"
    ? targets[format]
    : pipeOf("RQET".includes(String.fromCharCode(bytes[0] ?? 0)) ? "daemon" : "guest")
  mute = true
  const before = inUse()
  target.decode([bytes], true)
  const allocated = since(before)
  same(kept === undefined, false, "nothing was decoded")
  mute = false
  const whole = target.decode([bytes], true)
  same(whole.said, target.reference(bytes).said, "the reference says otherwise")
  const other = target.decode(pieces(bytes, random), true)
  same(`${other.said} ${other.problem}`, `${whole.said} ${whole.problem}`, "other pieces, another answer")
  // Judged on the word that is wrong: a prefix that holds it is refused although nothing says that no more will come.
  const prefix = bytes.subarray(0, random.below(bytes.length + 1))
  const early = target.decode(pieces(prefix, random), false)
  const refused = target.reference(prefix).verdict === "malformed"
  same(
    early.verdict,
    refused ? "malformed" : early.verdict === "end" ? "end" : "open",
    "not judged on the word that is wrong"
  )
  return { outcome: `${format}: ${whole.verdict} ${whole.problem}`, allocated, window: DECODER_WINDOW }
}

/** The largest buffer a decoder starts with. */
const DECODER_WINDOW = 128 * 1024
