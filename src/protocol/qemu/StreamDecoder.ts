/**
 * Decodes the forward stream, from the header to its last byte, in whatever pieces it arrives: precopy, post-copy, or
 * what follows a recovery.
 *
 *   header ─▶ configuration ─▶ records ⇄ ram ⇄ footer        post-copy ends in records, with EOF
 *                                 └─04─▶ devices ─▶ description ─▶ over      precopy
 *
 * Device sections have no length. Of a precopy stream they are everything from the first section of type 04 to the
 * description that follows them, which is found by how it must begin; of a post-copy stream they are in a package.
 */
import type { Decoder, End, Malformed, Message } from "../Decoder.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import { decode } from "../umem/Names.ts"
import * as CommandParser from "./CommandParser.ts"
import * as ConfigurationParser from "./ConfigurationParser.ts"
import { MAGIC, MAX_DEVICE_BYTES, RAM_VERSION, Record, VERSION } from "./Constants.ts"
import * as DeviceTail from "./DeviceTail.ts"
import type { QemuBlock } from "./QemuBlock.ts"
import { Problem, RamParser } from "./RamParser.ts"
import type { StreamItem } from "./StreamItem.ts"

export interface DecoderOptions {
  /** The stream goes on after a recovery: no header, and these are the blocks. */
  readonly resumed?: ReadonlyArray<QemuBlock>
}

type Stage = "header" | "configuration" | "records" | "ram" | "footer" | "devices" | "eof" | "description" | "over"
type Step = Message<StreamItem> | Malformed | End | undefined

/** Takes a 256 KiB read and the rest of a record without moving anything. */
const BUFFER_BYTES = 512 * 1024

class StreamDecoder extends IncrementalDecoder<StreamItem> {
  protected readonly what = "a migration stream"
  private stage: Stage
  private readonly ram: RamParser
  private readonly tail = new DeviceTail.DeviceTail()
  /** Section id of `ram`, once it has started. */
  private ramId = -1
  private inSection = -1
  private noMore = false

  constructor({ resumed }: DecoderOptions) {
    super(0, BUFFER_BYTES)
    this.ram = new RamParser(resumed)
    this.stage = resumed === undefined ? "header" : "records"
    if (resumed !== undefined) this.ramId = -2
  }

  override finish(): void {
    this.noMore = true
    super.finish()
  }

  protected atBoundary(): boolean {
    return this.stage === "over"
  }

  protected step(): Step {
    const { input } = this
    switch (this.stage) {
      case "header": {
        if (input.available < 4) return undefined
        if (input.be32(0) !== MAGIC) {
          return this.malformed(0, "this is no migration stream of QEMU: the magic is missing")
        }
        if (input.available < 8) return undefined
        if (input.be32(4) !== VERSION) return this.malformed(4, `stream version ${input.be32(4)}: only 3 is spoken`)
        this.stage = "configuration"
        return this.item(8, { _tag: "Header" })
      }
      case "configuration": {
        const parsed = ConfigurationParser.parse(input)
        if (parsed === undefined) return undefined
        if (parsed instanceof Problem) return this.malformed(parsed.at, parsed.message)
        this.stage = "records"
        return this.item(parsed.length, parsed.item)
      }
      case "records":
        return this.record()
      case "ram": {
        const record = this.ram.parse(input)
        if (record === undefined) return undefined
        if (record instanceof Problem) return this.malformed(record.at, record.message)
        if (record._tag === "Eos") this.stage = "footer"
        return this.item(this.ram.length, record)
      }
      case "footer": {
        if (input.available < 1) return undefined
        if (input.u8(0) !== Record.Footer) {
          return this.malformed(0, `byte ${input.u8(0)} where the footer of section ${this.inSection} must be`)
        }
        if (input.available < 5) return undefined
        if (input.be32(1) !== this.inSection) {
          return this.malformed(1, `the footer of section ${input.be32(1)} behind section ${this.inSection}`)
        }
        this.stage = "records"
        return this.item(5, { _tag: "Footer", id: this.inSection })
      }
      case "devices":
        return this.devices()
      case "eof":
        this.stage = this.tail.described ? "description" : "over"
        return this.item(1, { _tag: "Eof" })
      case "description": {
        const length = input.be32(1)
        if (length > MAX_DEVICE_BYTES) return this.malformed(1, `a description of ${length} bytes`)
        if (input.available < 5 + length) return undefined
        this.stage = "over"
        const from = input.start + 5
        return this.item(5 + length, { _tag: "VmDescription", text: input.bytes.slice(from, from + length) })
      }
      case "over":
        return input.available === 0 ? undefined : this.malformed(0, "bytes follow the end of the migration")
    }
  }

  private record(): Step {
    const { input } = this
    if (input.available < 1) return undefined
    const type = input.u8(0)
    switch (type) {
      case Record.Command: {
        const parsed = CommandParser.parse(input)
        if (parsed === undefined) return undefined
        if (parsed instanceof Problem) return this.malformed(parsed.at, parsed.message)
        const { item, length } = parsed
        if (item._tag === "PostcopyAdvise") this.ram.advised = item.sizes?.pageSizes ?? 0
        return this.item(length, item)
      }
      case Record.SectionStart:
        return this.sectionStart()
      case Record.SectionPart:
      case Record.SectionEnd: {
        if (input.available < 5) return undefined
        const id = input.be32(1)
        // After a recovery the id of `ram` is whatever the source says first.
        if (this.ramId === -2) this.ramId = id
        if (id !== this.ramId) return this.malformed(1, `a part of section ${id}, which has not started`)
        this.inSection = id
        this.stage = "ram"
        return this.item(5, { _tag: type === Record.SectionPart ? "SectionPart" : "SectionEnd", id })
      }
      case Record.SectionFull:
        if (this.ramId < 0) return this.malformed(0, "device state before the guest's memory")
        this.stage = "devices"
        return this.devices()
      case Record.Eof:
        this.stage = "over"
        return this.item(1, { _tag: "Eof" })
      default:
        return this.malformed(0, `record type 0x${type.toString(16)} is unknown here`)
    }
  }

  private sectionStart(): Step {
    const { input } = this
    if (input.available < 6) return undefined
    const n = input.u8(5)
    if (n === 0) return this.malformed(5, "a section's name is empty")
    const length = 6 + n + 8
    if (input.available < length) return undefined
    const id = input.be32(1)
    const idstr = decode(input, 6, n)
    const instance = input.be32(6 + n)
    const version = input.be32(6 + n + 4)
    if (idstr !== "ram" || instance !== 0) {
      return this.malformed(
        6,
        `section ${JSON.stringify(idstr ?? "?")} has data of a kind that cannot be kept (block migration, dirty ` +
          `bitmaps or a passed-through device): remove it from the machine`
      )
    }
    if (this.ramId !== -1) return this.malformed(0, "the guest's memory starts twice")
    if (version !== RAM_VERSION) return this.malformed(6 + n + 4, `version ${version} of section ram: only 4 is known`)
    this.ramId = id
    this.inSection = id
    this.stage = "ram"
    return this.item(length, { _tag: "SectionStart", id, idstr, instance, version })
  }

  private devices(): Step {
    const { input } = this
    const length = this.tail.find(input, this.noMore)
    if (length === undefined) {
      if (input.available <= MAX_DEVICE_BYTES) return undefined
      return this.malformed(0, `more than ${MAX_DEVICE_BYTES} bytes of device state`)
    }
    this.stage = "eof"
    return this.item(length, { _tag: "DeviceState", bytes: input.bytes.slice(input.start, input.start + length) })
  }

  private item(length: number, message: StreamItem): Message<StreamItem> {
    const { offset } = this.input
    this.input.consume(length)
    return { _tag: "Message", offset, message }
  }
}

/** A decoder of one connection's forward stream. */
export const decoder = (options: DecoderOptions = {}): Decoder<StreamItem> => new StreamDecoder(options)
