/**
 * The command line of `postcopy qemu restore` read without the command tree, which would be a sixth of such a process's
 * memory. Only what is meant beyond doubt is understood here: flags and values as help shows them, each once. Whatever
 * else is given, help and mistakes among it, is `undefined`, and for the command tree to read and to answer.
 */
import * as Option from "effect/Option"
import type { Asked } from "./QemuRestoring.ts"
import * as Rate from "./Rate.ts"

const toggles: ReadonlyArray<string> = ["nobg", "resume", "preempt", "json"]
const values: ReadonlyArray<string> = ["qmp", "max-bandwidth", "record", "replay"]

/** A word that could not be anything else than a value. */
const isValue = (word: string | undefined): word is string => word !== undefined && word !== "" && !word.startsWith("-")

/** The words behind `qemu restore`. */
export const parse = (words: ReadonlyArray<string>): Asked | undefined => {
  const flags = new Map<string, string>()
  const positional: Array<string> = []
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (word === "-" || isValue(word)) {
      positional.push(word)
      continue
    }
    const [, name = "", joined] = /^--([a-z-]+)(?:=(.*))?$/s.exec(word) ?? []
    if (flags.has(name)) return undefined
    if (toggles.includes(name) && joined === undefined) flags.set(name, "")
    else if (values.includes(name)) {
      const value = joined ?? words[++i]
      if (!isValue(value)) return undefined
      flags.set(name, value)
    } else return undefined
  }
  const [image, uri, ...more] = positional
  if (image === undefined || image === "-" || uri === undefined || more.length > 0) return undefined
  const rate = flags.get("max-bandwidth")
  const maxBandwidth = rate === undefined ? Option.none() : Rate.parse(rate)
  if (rate !== undefined && Option.isNone(maxBandwidth)) return undefined
  return {
    image,
    uri,
    qmp: Option.fromUndefinedOr(flags.get("qmp")),
    nobg: flags.has("nobg"),
    maxBandwidth,
    record: Option.fromUndefinedOr(flags.get("record")),
    replay: Option.fromUndefinedOr(flags.get("replay")),
    resume: flags.has("resume"),
    preempt: flags.has("preempt")
  }
}
