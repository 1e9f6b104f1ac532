/**
 * Parses one command of the forward stream where it lies. A wrong length is refused at the length, a wrong number at the
 * number. A package is kept until it is whole: it is bounded, and grows only by bytes that arrived.
 */
import type { ReceiveBuffer } from "../ReceiveBuffer.ts"
import { decode } from "../umem/Names.ts"
import { Command, MAX_DEVICE_BYTES, TARGET_PAGE_SIZE } from "./Constants.ts"
import { Problem } from "./RamParser.ts"
import type { Range } from "./Stream.ts"
import type { CommandItem } from "./StreamItem.ts"

/** Type byte, number and length. */
const HEADER = 5

/** Shortest and longest payload of each command. */
const lengths: Readonly<Record<number, readonly [number, number]>> = {
  [Command.OpenReturnPath]: [0, 0],
  [Command.Ping]: [4, 4],
  [Command.PostcopyAdvise]: [0, 16],
  [Command.PostcopyListen]: [0, 0],
  [Command.PostcopyRun]: [0, 0],
  [Command.PostcopyRamDiscard]: [20, 65535],
  [Command.Packaged]: [4, 4],
  [Command.EnableColo]: [0, 0],
  [Command.PostcopyResume]: [0, 0],
  [Command.RecvBitmap]: [2, 256]
}

export interface Parsed {
  readonly item: CommandItem
  /** Bytes of the record. */
  readonly length: number
}

const u16 = (input: ReceiveBuffer, at: number) => input.u8(at) * 256 + input.u8(at + 1)

/** The name in `[at, at + limit)`. */
const nameAt = (input: ReceiveBuffer, at: number, limit: number): string | Problem => {
  const n = input.u8(at)
  if (n === 0 || n + 1 > limit) return new Problem(at, `a block's name of ${n} bytes in ${limit}`)
  return decode(input, at + 1, n) ?? new Problem(at + 1, "the block's name is not UTF-8")
}

const discard = (input: ReceiveBuffer, length: number): CommandItem | Problem => {
  const end = HEADER + length
  if (input.u8(HEADER) !== 0) return new Problem(HEADER, `POSTCOPY_RAM_DISCARD of version ${input.u8(HEADER)}`)
  const idstr = nameAt(input, HEADER + 1, length - 1 - 17)
  if (idstr instanceof Problem) return idstr
  let at = HEADER + 2 + input.u8(HEADER + 1)
  if (input.u8(at) !== 0) return new Problem(at, "the block's name is not followed by 0")
  at++
  if ((end - at) % 16 !== 0) return new Problem(at, `${end - at} bytes of ranges: multiples of 16 are possible`)
  const ranges: Array<Range> = []
  for (; at < end; at += 16) {
    const start = input.be64(at)
    const bytes = input.be64(at + 8)
    if (start % TARGET_PAGE_SIZE !== 0 || bytes % TARGET_PAGE_SIZE !== 0 || bytes === 0) {
      return new Problem(at, `a range of ${bytes} bytes at ${start}: whole pages are expected`)
    }
    if (start + bytes > Number.MAX_SAFE_INTEGER) return new Problem(at, "a range beyond every block")
    ranges.push({ start, length: bytes })
  }
  return { _tag: "PostcopyRamDiscard", idstr, ranges }
}

const advise = (input: ReceiveBuffer, length: number): CommandItem | Problem => {
  if (length === 0) return { _tag: "PostcopyAdvise" }
  const target = input.be64(HEADER + 8)
  if (target !== TARGET_PAGE_SIZE) return new Problem(HEADER + 8, `a target page size of ${target} bytes`)
  const pageSizes = input.be64(HEADER)
  if (pageSizes > Number.MAX_SAFE_INTEGER) return new Problem(HEADER, "page sizes that no host has")
  return { _tag: "PostcopyAdvise", sizes: { pageSizes, target } }
}

/** The command at the start of the input, which it leaves there; `undefined` when bytes are missing. */
export const parse = (input: ReceiveBuffer): Parsed | Problem | undefined => {
  if (input.available < 3) return undefined
  const number = u16(input, 1)
  const bounds = lengths[number]
  if (bounds === undefined) return new Problem(1, `unknown command ${number}`)
  if (input.available < HEADER) return undefined
  const length = u16(input, 3)
  const fits = number === Command.PostcopyAdvise
    ? length === 0 || length === 16
    : length >= bounds[0] && length <= bounds[1]
  if (!fits) return new Problem(3, `${length} bytes of command ${number}`)
  if (input.available < HEADER + length) return undefined
  const whole = (item: CommandItem | Problem): Parsed | Problem =>
    item instanceof Problem ? item : { item, length: HEADER + length }
  switch (number) {
    case Command.OpenReturnPath:
      return whole({ _tag: "OpenReturnPath" })
    case Command.Ping:
      return whole({ _tag: "Ping", value: input.be32(HEADER) })
    case Command.PostcopyAdvise:
      return whole(advise(input, length))
    case Command.PostcopyListen:
      return whole({ _tag: "PostcopyListen" })
    case Command.PostcopyRun:
      return whole({ _tag: "PostcopyRun" })
    case Command.PostcopyRamDiscard:
      return whole(discard(input, length))
    case Command.EnableColo:
      return whole({ _tag: "EnableColo" })
    case Command.PostcopyResume:
      return whole({ _tag: "PostcopyResume" })
    case Command.RecvBitmap: {
      const idstr = nameAt(input, HEADER, length)
      if (idstr instanceof Problem) return idstr
      if (input.u8(HEADER) !== length - 1) return new Problem(HEADER, "the block's name does not fill its command")
      return whole({ _tag: "RecvBitmap", idstr })
    }
    default: {
      const bytes = input.be32(HEADER)
      if (bytes > MAX_DEVICE_BYTES) {
        return new Problem(HEADER, `a package of ${bytes} bytes: at most ${MAX_DEVICE_BYTES} are taken`)
      }
      const from = HEADER + length
      if (input.available < from + bytes) return undefined
      const at = input.start + from
      return { item: { _tag: "Packaged", bytes: input.bytes.slice(at, at + bytes) }, length: from + bytes }
    }
  }
}
