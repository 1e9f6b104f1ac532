/**
 * Decodes the request channel on the source. Every field is judged as soon as its own bytes are there, and nothing is
 * parsed twice however the bytes arrive. What it keeps is bounded: a message is no larger than 4095 pages and a name.
 */
import type { Decoder, End, Malformed, Message } from "../Decoder.ts"
import type * as Dialect from "../Dialect.ts"
import { IncrementalDecoder } from "../IncrementalDecoder.ts"
import type { RamBlock } from "../RamBlock.ts"
import { Command, MAX_RECEIVED_PAGE_NR, TARGET_PAGE_SIZE, WINDOW_BYTES } from "./Constants.ts"
import { BlockTable } from "./Names.ts"
import type { PageRequest, Request } from "./Request.ts"

export interface DecoderOptions {
  /** The guest's blocks; without them any name and any page is taken. */
  readonly blocks?: ReadonlyArray<RamBlock>
  /** Bytes of a target page. Default 4096. */
  readonly targetPageSize?: number
  /** Pages of one message, at most. Default 4095. */
  readonly maxPages?: number
}

const tags = ["Init", "OnDemand", "OnDemandCont", "Background", "BackgroundCont", "Remove", "Eoc"] as const
type Stage = "command" | "name" | "count" | "pages"

class RequestDecoder extends IncrementalDecoder<Request> {
  protected readonly what = "a request"
  private readonly table: BlockTable
  private readonly targetPageSize: number
  private readonly maxPages: number
  /** Where the last ON_DEMAND or BACKGROUND pointed. */
  private context: { readonly idstr: string; readonly length: number } | undefined
  private ended = false

  /** The message under way; `at` is where its next field begins. */
  private stage: Stage = "command"
  private at = 0
  private cmd = 0
  private idstr = ""
  private blockPages = Infinity
  private pages = new Float64Array(0)
  private filled = 0
  private wide = false

  constructor({ blocks, maxPages = MAX_RECEIVED_PAGE_NR, targetPageSize = TARGET_PAGE_SIZE }: DecoderOptions) {
    super(0, WINDOW_BYTES)
    this.table = new BlockTable(blocks)
    this.targetPageSize = targetPageSize
    this.maxPages = maxPages
  }

  protected atBoundary(): boolean {
    return this.stage === "command"
  }

  continuing(): string | undefined {
    return this.stage === "command" && !this.ended && this.input.available === 0 ? this.context?.idstr : undefined
  }

  passed(bytes: number): void {
    this.input.offset += bytes
  }

  protected step(): Message<Request> | Malformed | End | undefined {
    const { input } = this
    while (true) {
      switch (this.stage) {
        case "command": {
          if (input.available < 1) return undefined
          if (this.ended) return this.malformed(0, "bytes follow the end of connection")
          const problem = this.command(input.u8(0))
          if (problem !== undefined) return this.malformed(0, problem)
          if (this.cmd === Command.Init || this.cmd === Command.Eoc) {
            this.ended = this.cmd === Command.Eoc
            return this.message({ _tag: this.cmd === Command.Eoc ? "Eoc" : "Init", cmd: this.cmd })
          }
          break
        }
        case "name": {
          if (input.available < 2) return undefined
          const n = input.u8(1)
          if (n === 0) return this.malformed(1, "the block's name is empty")
          if (input.available < 2 + n) return undefined
          const problem = this.table.find(input, 2, n)
          if (problem !== undefined) return this.malformed(2, problem)
          this.enter(this.table.idstr, this.table.length)
          if (this.cmd !== Command.Remove) this.context = { idstr: this.table.idstr, length: this.table.length }
          this.at = 2 + n
          this.stage = "count"
          break
        }
        case "count": {
          if (input.available < this.at + 4) return undefined
          const nr = input.be32(this.at)
          if (nr > this.maxPages) {
            return this.malformed(this.at, `${nr} pages in one request: at most ${this.maxPages} are possible`)
          }
          this.at += 4
          this.pages = new Float64Array(nr)
          this.filled = 0
          this.wide = false
          this.stage = "pages"
          break
        }
        case "pages": {
          const { pages } = this
          const first = this.at - this.filled * 8
          const ready = Math.min(pages.length, Math.floor((input.available - first) / 8))
          for (; this.filled < ready; this.filled++, this.at += 8) {
            const page = input.be64(this.at)
            if (page >= this.blockPages) {
              return this.malformed(
                this.at,
                `page ${input.be64Exact(this.at)} is beyond block ${
                  JSON.stringify(this.idstr)
                } of ${this.blockPages} pages`
              )
            }
            if (page > Number.MAX_SAFE_INTEGER) this.wide = true
            pages[this.filled] = page
          }
          if (this.filled < pages.length) return undefined
          return this.message(this.request(first))
        }
      }
    }
  }

  /** Begins a message. */
  private command(cmd: number): string | undefined {
    if (cmd > Command.Eoc) return `unknown request ${cmd}`
    this.cmd = cmd
    if (cmd === Command.OnDemandCont || cmd === Command.BackgroundCont) {
      if (this.context === undefined) return "a request that continues a block, before any block was named"
      this.enter(this.context.idstr, this.context.length)
      this.at = 1
      this.stage = "count"
    } else if (cmd !== Command.Init && cmd !== Command.Eoc) this.stage = "name"
    else this.at = 1
    return undefined
  }

  private enter(idstr: string, length: number): void {
    this.idstr = idstr
    this.blockPages = Math.ceil(length / this.targetPageSize)
  }

  private request(first: number): PageRequest {
    const request = { _tag: tags[this.cmd] as PageRequest["_tag"], cmd: this.cmd, idstr: this.idstr, pages: this.pages }
    if (!this.wide) return request
    return { ...request, exactPages: Array.from(this.pages, (_, i) => this.input.be64Exact(first + i * 8)) }
  }

  private message(message: Request): Message<Request> {
    const offset = this.input.offset
    this.input.consume(this.at)
    this.stage = "command"
    return { _tag: "Message", offset, message }
  }
}

/** A decoder of one connection's requests. */
export const decoder = (
  options: DecoderOptions = {}
): Decoder<Request> & Required<Pick<Dialect.RequestDecoder, "continuing" | "passed">> => new RequestDecoder(options)
