/**
 * Decodes the savevm framing up to and including its EOF byte; what has been pushed beyond it stays in `remainder`, for
 * it belongs to the post-copy phase. Sections are `ram`, `block`, `guest` and devices whose payload length is given.
 * Each field is judged as soon as it is there.
 */
import { type Decoder, type End, end, type Malformed, type Message } from "../Decoder.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import type { RamBlock } from "../RamBlock.ts"
import { BLOCK_EOS, RAM_VERSION, SAVEVM_MAGIC, SAVEVM_VERSION, Section } from "./Constants.ts"
import { decode } from "./Names.ts"
import { RamReader, Read, type RefuseBlock } from "./RamReader.ts"
import { record } from "./RamStream.ts"
import type { SavevmMessage, SectionHeader, SectionMessage } from "./Savevm.ts"

/** Of device state, unless configured: it is held in memory until the guest resumes. */
const MAX_GUEST_STATE = 64 * 1024 * 1024
/** Sections, at most: ids are kept until EOF. */
const MAX_SECTIONS = 4096
/** Grows with the device state that arrives. */
const BUFFER_BYTES = 32 * 1024

export interface DecoderOptions {
  /** The guest's blocks, which the block list must equal in names and lengths. */
  readonly blocks?: ReadonlyArray<RamBlock>
  /** Judges each block of the list in the place of `blocks`, by its name first: why not, or `undefined`. */
  readonly refuseBlock?: RefuseBlock
  /** Bytes of a target page. Default 4096. */
  readonly targetPageSize?: number
  /** Bytes of the section `guest`, at most. Default 64 MiB. */
  readonly maxGuestState?: number
  /** Payload bytes of further FULL sections by name. */
  readonly devices?: ReadonlyMap<string, number>
}

type Stage = "header" | "type" | "ram" | "block" | "guest" | "device" | "over"

/** What is known of a section's name. */
interface Known {
  readonly live: boolean
  readonly payload: "ram" | "block" | "guest" | "device"
  /** `undefined`: any. */
  readonly version: number | undefined
}

const known: ReadonlyMap<string, Known> = new Map([
  ["ram", { live: true, payload: "ram", version: RAM_VERSION }],
  ["block", { live: true, payload: "block", version: 1 }],
  ["guest", { live: false, payload: "guest", version: 1 }]
])

class SavevmDecoder extends IncrementalDecoder<SavevmMessage> {
  protected readonly what = "a savevm message"
  private readonly ram: RamReader
  private readonly maxGuestState: number
  private readonly devices: ReadonlyMap<string, number>
  private readonly sections = new Map<number, SectionHeader & { readonly known: Known; over: boolean }>()
  private stage: Stage = "header"
  private section: SectionHeader | undefined

  constructor(options: DecoderOptions) {
    super(0, BUFFER_BYTES)
    const { devices, maxGuestState = MAX_GUEST_STATE } = options
    this.ram = new RamReader(this.input, { ...options, phase: "section" })
    this.maxGuestState = maxGuestState
    this.devices = devices ?? new Map()
  }

  protected atBoundary(): boolean {
    return this.stage === "type" || this.stage === "header"
  }

  protected step(): Message<SavevmMessage> | Malformed | End | undefined {
    switch (this.stage) {
      case "header":
        return this.header()
      case "type":
        return this.type()
      case "ram":
        return this.ramRecord()
      case "block": {
        if (this.input.available < 8) return undefined
        if (this.input.be64(0) !== BLOCK_EOS) return this.malformed(0, "block migration is not possible")
        return this.message(8, { _tag: "Block" }, "type")
      }
      case "guest": {
        if (this.input.available < 4) return undefined
        const length = this.input.be32(0)
        if (length > this.maxGuestState) {
          return this.malformed(0, `device state of ${length} bytes: at most ${this.maxGuestState} are taken`)
        }
        return this.payload(4, length)
      }
      case "device":
        return this.payload(0, this.devices.get(this.section!.name)!)
      case "over":
        return end
    }
  }

  private header(): Message<SavevmMessage> | Malformed | undefined {
    const { input } = this
    for (let i = 0; i < Math.min(4, input.available); i++) {
      if (input.u8(i) !== ((SAVEVM_MAGIC >>> (24 - i * 8)) & 0xff)) {
        return this.malformed(0, "this is no savevm stream: its magic is wrong")
      }
    }
    if (input.available < 8) return undefined
    const version = input.be32(4)
    if (version !== SAVEVM_VERSION) {
      return this.malformed(4, `savevm version ${version}: only ${SAVEVM_VERSION} is spoken`)
    }
    return this.message(8, { _tag: "Header", version }, "type")
  }

  private type(): Message<SavevmMessage> | Malformed | undefined {
    if (this.input.available < 1) return undefined
    const type = this.input.u8(0)
    switch (type) {
      case Section.Eof:
        return this.message(1, { _tag: "Eof" }, "over")
      case Section.Start:
        return this.announced("start")
      case Section.Full:
        return this.announced("full")
      case Section.Part:
        return this.continued("part")
      case Section.End:
        return this.continued("end")
      default:
        return this.malformed(0, `unknown section type ${type}`)
    }
  }

  /** START and FULL. */
  private announced(kind: "start" | "full"): Message<SavevmMessage> | Malformed | undefined {
    const { input } = this
    if (input.available < 5) return undefined
    const sectionId = input.be32(1)
    if (this.sections.has(sectionId)) return this.malformed(1, `section ${sectionId} begins twice`)
    if (this.sections.size === MAX_SECTIONS) return this.malformed(1, `more than ${MAX_SECTIONS} sections`)
    if (input.available < 6) return undefined
    const n = input.u8(5)
    if (n === 0) return this.malformed(5, "the section's name is empty")
    if (input.available < 6 + n) return undefined
    const name = decode(input, 6, n)
    if (name === undefined) return this.malformed(6, "the section's name is not UTF-8")
    const section = known.get(name) ?? this.device(name)
    const quoted = JSON.stringify(name)
    if (section === undefined) {
      return this.malformed(6, `unknown section ${quoted}: the length of its payload is not known`)
    }
    if (section.live !== (kind === "start")) {
      return this.malformed(6, `section ${quoted} comes as ${kind === "start" ? "START" : "FULL"}`)
    }
    if (input.available < 10 + n) return undefined
    const instance = input.be32(6 + n)
    if (section.version !== undefined && instance !== 0) {
      return this.malformed(6 + n, `unknown instance ${instance} of section ${quoted}`)
    }
    for (const other of this.sections.values()) {
      if (other.name === name && other.instance === instance) {
        return this.malformed(6 + n, `instance ${instance} of section ${quoted} comes twice`)
      }
    }
    if (input.available < 14 + n) return undefined
    const version = input.be32(10 + n)
    if (section.version !== undefined && version !== section.version) {
      return this.malformed(10 + n, `section ${quoted} has version ${version}: only ${section.version} is spoken`)
    }
    const header = { sectionId, name, instance, version }
    this.sections.set(sectionId, { ...header, known: section, over: false })
    return this.begun(14 + n, kind, header, section)
  }

  /** PART and END. */
  private continued(kind: "part" | "end"): Message<SavevmMessage> | Malformed | undefined {
    if (this.input.available < 5) return undefined
    const sectionId = this.input.be32(1)
    const section = this.sections.get(sectionId)
    if (section === undefined || !section.known.live || section.over) {
      return this.malformed(1, `no live section ${sectionId} is under way`)
    }
    if (kind === "end") section.over = true
    const { instance, name, version } = section
    return this.begun(5, kind, { sectionId, name, instance, version }, section.known)
  }

  private begun(
    size: number,
    kind: SectionMessage["kind"],
    header: SectionHeader,
    section: Known
  ): Message<SavevmMessage> {
    this.section = header
    return this.message(size, { _tag: "Section", kind, ...header }, section.payload)
  }

  private device(name: string): Known | undefined {
    return this.devices.has(name) ? { live: false, payload: "device", version: undefined } : undefined
  }

  /** A record of a section of `ram`, which its EOS ends. */
  private ramRecord(): Message<SavevmMessage> | Malformed | undefined {
    const { ram } = this
    const read = ram.next()
    if (read === Read.NeedMore) return undefined
    if (read === Read.Malformed) {
      return { _tag: "Malformed", offset: ram.offset, message: ram.problem, truncated: false }
    }
    if (read === Read.Eos) this.stage = "type"
    return {
      _tag: "Message",
      offset: ram.offset,
      message: { _tag: "Ram", record: record(ram, read, this.input.bytes) }
    }
  }

  private payload(from: number, length: number): Message<SavevmMessage> | undefined {
    const { input } = this
    if (input.available < from + length) return undefined
    const { instance, name, version } = this.section!
    const data = input.bytes.slice(input.start + from, input.start + from + length)
    return this.message(from + length, { _tag: "Device", name, instance, version, data }, "type")
  }

  private message(size: number, message: SavevmMessage, next: Stage): Message<SavevmMessage> {
    const offset = this.input.offset
    this.input.consume(size)
    this.stage = next
    return { _tag: "Message", offset, message }
  }
}

/** A decoder of one stream up to its switchover, after which it answers `End`. */
export const decoder = (options: DecoderOptions = {}): Decoder<SavevmMessage> => new SavevmDecoder(options)
