/**
 * Parses the configuration record, which names the machine, with its optional subsections. Subsections have no length:
 * the three that a source may send are known, any other is refused.
 */
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { decode } from "../umem/Names.ts"
import { MAX_CAPABILITIES, MAX_MACHINE_BYTES, Record } from "./Constants.ts"
import { Problem } from "./RamParser.ts"
import type { StreamItem, Subsection } from "./StreamItem.ts"

const machineAt = 5

/** Bytes of a subsection's body at `at`; `undefined` when bytes are missing. */
const bodyLength = (input: ReceiveBuffer, at: number, name: string): number | Problem | undefined => {
  switch (name) {
    case "configuration/target-page-bits":
      return 4
    case "configuration/uuid":
      return 16
    case "configuration/capabilities": {
      if (input.available < at + 4) return undefined
      const count = input.be32(at)
      if (count > MAX_CAPABILITIES) return new Problem(at, `${count} capabilities`)
      let end = at + 4
      for (let i = 0; i < count; i++) {
        if (input.available < end + 1) return undefined
        end += 1 + input.u8(end)
      }
      return end - at
    }
    default:
      return new Problem(at - 5 - name.length, `unknown subsection ${JSON.stringify(name)} of the configuration`)
  }
}

/** The subsections from `at` on, and where they end. */
const subsections = (
  input: ReceiveBuffer,
  start: number
): { readonly list: ReadonlyArray<Subsection>; readonly end: number } | Problem | undefined => {
  const list: Array<Subsection> = []
  let at = start
  while (true) {
    if (input.available < at + 1) return undefined
    if (input.u8(at) !== Record.Subsection) return { list, end: at }
    if (input.available < at + 2) return undefined
    const n = input.u8(at + 1)
    if (input.available < at + 2 + n + 4) return undefined
    const name = decode(input, at + 2, n)
    if (name === undefined) return new Problem(at + 2, "a subsection's name is not UTF-8")
    if (list.some((known) => known.name === name)) return new Problem(at + 2, `subsection ${name} comes twice`)
    const body = at + 2 + n + 4
    const length = bodyLength(input, body, name)
    if (length === undefined || length instanceof Problem) return length
    if (input.available < body + length) return undefined
    const from = input.start + body
    list.push({ name, version: input.be32(body - 4), body: input.bytes.slice(from, from + length) })
    at = body + length
  }
}

/** The record at the start of the input, with the byte behind it there to tell that it is whole. */
export const parse = (
  input: ReceiveBuffer
): { readonly item: StreamItem; readonly length: number } | Problem | undefined => {
  if (input.available < 1) return undefined
  if (input.u8(0) !== Record.Configuration) {
    return new Problem(0, "the stream does not name its machine: it is older than what is understood")
  }
  if (input.available < machineAt) return undefined
  const n = input.be32(1)
  if (n === 0 || n > MAX_MACHINE_BYTES) return new Problem(1, `a machine's name of ${n} bytes`)
  if (input.available < machineAt + n) return undefined
  const machine = decode(input, machineAt, n)
  if (machine === undefined) return new Problem(machineAt, "the machine's name is not UTF-8")
  const rest = subsections(input, machineAt + n)
  if (rest === undefined || rest instanceof Problem) return rest
  const { end, list } = rest
  const bytes = input.bytes.slice(input.start, input.start + end)
  return { item: { _tag: "Configuration", machine, subsections: list, bytes }, length: end }
}
