/**
 * The arrows of a migration's sequence (source, destination's guest process, umem daemon), and by which bytes each is
 * known to the process that sends or receives it. A guest whose blocks are small makes every one of them come once.
 */
export type Process = "source" | "destination" | "daemon"

export interface Arrow {
  readonly name: string
  /** The process that is stopped there. */
  readonly at: Process
  /** About to write, having read, about to send descriptors. */
  readonly when: "writing" | "reading" | "handing over"
  /** Whether these bytes are the arrow's; `seen`: first byte and length of each write of this process before. */
  readonly matches: (bytes: Uint8Array, seen: ReadonlyArray<string>) => boolean
  /** Where the switchover's byte is then: not written, or being read by the destination, or past it. */
  readonly phase: "before" | "latched" | "after"
}

const text = (bytes: Uint8Array, from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to))
const only = (letter: string) => (bytes: Uint8Array) => bytes.length === 1 && text(bytes, 0, 1) === letter
const magic = (bytes: Uint8Array) => text(bytes, 0, 4) === "QEVM"
const ZERO = "\u0000"
/** The savevm EOF: one zero byte, the only write of that kind by a source. */
const switched = (seen: ReadonlyArray<string>) => seen.includes(`${ZERO}1`)
const endsWithEos = (bytes: Uint8Array) =>
  bytes.length >= 8 && bytes.at(-1) === 0x10 && bytes.subarray(-8, -1).every((byte) => byte === 0)

export const arrows: ReadonlyArray<Arrow> = [
  { name: "the block list is sent", at: "source", when: "writing", matches: magic, phase: "before" },
  { name: "the block list has come", at: "destination", when: "reading", matches: magic, phase: "before" },
  {
    name: "the device state is sent",
    at: "source",
    when: "writing",
    matches: (bytes, seen) => bytes[0] === 3 && seen.length === 1,
    phase: "before"
  },
  { name: "the switchover is sent", at: "source", when: "writing", matches: only(ZERO), phase: "latched" },
  { name: "the link is handed over", at: "destination", when: "handing over", matches: () => true, phase: "after" },
  { name: "R is sent", at: "daemon", when: "writing", matches: only("R"), phase: "after" },
  { name: "R has come", at: "destination", when: "reading", matches: only("R"), phase: "after" },
  { name: "r is sent", at: "destination", when: "writing", matches: only("r"), phase: "after" },
  { name: "r has come", at: "daemon", when: "reading", matches: only("r"), phase: "after" },
  { name: "INIT is sent", at: "daemon", when: "writing", matches: (bytes) => bytes[0] === 0, phase: "after" },
  {
    name: "the first pages are sent",
    at: "source",
    when: "writing",
    matches: (bytes, seen) => switched(seen) && bytes.length > 8,
    phase: "after"
  },
  {
    name: "the first pages have come",
    at: "daemon",
    when: "reading",
    matches: (bytes) => bytes.length > 1000,
    phase: "after"
  },
  {
    name: "pages are asked for",
    at: "daemon",
    when: "writing",
    matches: (bytes) => bytes.at(-1) !== 6 && bytes.length > 12,
    phase: "after"
  },
  {
    name: "EOS is sent",
    at: "source",
    when: "writing",
    matches: (bytes, seen) => switched(seen) && endsWithEos(bytes),
    phase: "after"
  },
  { name: "EOS has come", at: "daemon", when: "reading", matches: endsWithEos, phase: "after" },
  { name: "EOC is sent", at: "daemon", when: "writing", matches: (bytes) => bytes.at(-1) === 6, phase: "after" },
  { name: "EOC has come", at: "source", when: "reading", matches: (bytes) => bytes.at(-1) === 6, phase: "after" },
  { name: "Q is sent", at: "daemon", when: "writing", matches: only("Q"), phase: "after" },
  { name: "Q has come", at: "destination", when: "reading", matches: only("Q"), phase: "after" },
  { name: "q is sent", at: "destination", when: "writing", matches: only("q"), phase: "after" },
  { name: "q has come", at: "daemon", when: "reading", matches: only("q"), phase: "after" }
]
