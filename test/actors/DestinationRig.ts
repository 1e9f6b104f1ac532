/**
 * The umem daemon over memory that obeys the kernel's rules, with both of its peers scripted: the source's end of the
 * link, which notes requests and feeds records, and the guest's end of the channel.
 */
import { Clock, Effect, Queue } from "effect"
import * as Channel from "../../src/actors/Channel.ts"
import { type DaemonMessage, MAILBOX_CAPACITY } from "../../src/actors/Mailboxes.ts"
import * as PipeMessages from "../../src/actors/PipeMessages.ts"
import * as UmemDaemon from "../../src/actors/UmemDaemon.ts"
import * as Pipe from "../../src/protocol/umem/Pipe.ts"
import * as RamStream from "../../src/protocol/umem/RamStream.ts"
import * as Request from "../../src/protocol/umem/Request.ts"
import * as DaemonCounters from "../../src/services/DaemonCounters.ts"
import { AGAIN, type Link } from "../../src/services/Link.ts"
import * as LinkMemory from "../../src/services/LinkMemory.ts"
import { PageStates } from "../../src/services/PageStates.ts"
import type { FaultChannel } from "../../src/services/Userfaultfd.ts"
import * as UserfaultfdMemory from "../../src/services/UserfaultfdMemory.ts"
import { PAGE, pageOf } from "./Contents.ts"

export interface Options {
  /** Bytes of each block. */
  readonly blocks: Readonly<Record<string, number>>
  /** How pages of all blocks get there. Default "copy". */
  readonly mode?: "copy" | "continue"
  readonly targetPageSize?: number
  readonly hostPageSize?: number
  readonly flags?: number
  readonly remainder?: Uint8Array
  readonly link?: LinkMemory.Options
  readonly channel?: LinkMemory.Options
  /** Replaces the daemon's end of the link. */
  readonly wrapLink?: (link: Link) => Link
  /** Replaces the serving side of the userfaultfd. */
  readonly wrap?: (uffd: FaultChannel) => FaultChannel
}

/** A request as the source sees it: command byte, block, pages. */
export type Asked = readonly [cmd: number, idstr: string, pages: ReadonlyArray<number>]

export const make = Effect.fnUntraced(function*(options: Options) {
  const { flags = 0, hostPageSize = PAGE, mode = "copy", remainder = new Uint8Array(0), targetPageSize = PAGE } =
    options
  const clock = yield* Clock.Clock
  const blocks = Object.entries(options.blocks).map(([idstr, length]) => ({ idstr, length, mode }))
  const memory = yield* UserfaultfdMemory.make({ blocks, hostPageSize })
  const [source, end] = yield* LinkMemory.pair(options.link)
  const link = options.wrapLink?.(end) ?? end
  const [guest, daemonEnd] = yield* LinkMemory.pair(options.channel)
  const counters = new DaemonCounters.DaemonCounters(new ArrayBuffer(DaemonCounters.BYTES))
  const states = new PageStates(PageStates.pagesOf(blocks, targetPageSize))
  let uffdClosed = false

  // ------------------------------------------------------------------------------------------------ the source's end
  const requests: Array<Asked> = []
  const bytes: Array<number> = []
  const heard = { init: 0, eoc: 0, eocAt: -1, malformed: "" }
  const decoder = Request.decoder({ blocks, targetPageSize })
  const buffer = new Uint8Array(4 * 1024 * 1024)
  let reading = true
  const read = () => {
    while (reading) {
      const n = source.read(buffer, 0, buffer.length)
      if (n <= 0) {
        if (n !== AGAIN) source.watch(false, false)
        return
      }
      if (bytes.length < 10_000) bytes.push(...buffer.subarray(0, Math.min(n, 10_000)))
      decoder.push(buffer.subarray(0, n))
      for (let outcome = decoder.next(); outcome._tag !== "NeedMore"; outcome = decoder.next()) {
        if (outcome._tag !== "Message") {
          heard.malformed = outcome._tag === "Malformed" ? outcome.message : "end"
          return
        }
        const { message } = outcome
        if (heard.eoc > 0) heard.malformed = `${message._tag} after EOC`
        if (message._tag === "Init") heard.init++
        else if (message._tag === "Eoc") {
          heard.eoc++
          heard.eocAt = clock.currentTimeMillisUnsafe()
        } else requests.push([message.cmd, message.idstr, Array.from(message.pages)])
      }
    }
  }
  source.attach(read)
  source.watch(true, false)
  const encoder = RamStream.encoder({ targetPageSize })
  const record = (write: (into: Uint8Array) => number): Uint8Array => {
    const into = new Uint8Array(RamStream.maxRecordBytes(targetPageSize))
    return into.slice(0, write(into))
  }
  const page = (idstr: string, target: number, content = pageOf(idstr, target, targetPageSize)): Uint8Array =>
    record((into) => {
      const n = encoder.page(into, 0, idstr, target * targetPageSize)
      into.set(content, n)
      return n + targetPageSize
    })
  const fill = (idstr: string, target: number, byte: number): Uint8Array =>
    record((into) => encoder.fill(into, 0, idstr, target * targetPageSize, byte))

  /** Waits while the link is full, as a source does. */
  const feed = (...pieces: ReadonlyArray<Uint8Array>) =>
    Effect.gen(function*() {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length;) {
          const n = source.write(piece, at, piece.length - at)
          if (n > 0) at += n
          else if (n === AGAIN) yield* Effect.yieldNow
          else return yield* Effect.die(new Error(`the daemon's link is gone: ${n}`))
        }
      }
    })

  // ------------------------------------------------------------------------------------------------ the guest's end
  const told: Array<Pipe.PipeMessage> = []
  const pipe = Pipe.decoder({ from: "daemon" })
  let guestReading = true
  const hear = () => {
    while (guestReading) {
      const n = guest.read(buffer, 0, buffer.length)
      if (n <= 0) {
        if (n !== AGAIN) guest.watch(false, false)
        return
      }
      pipe.push(buffer.subarray(0, n))
      for (let outcome = pipe.next(); outcome._tag === "Message"; outcome = pipe.next()) told.push(outcome.message)
    }
  }
  guest.attach(hear)
  guest.watch(true, false)

  const inbox = yield* Queue.bounded<DaemonMessage>(MAILBOX_CAPACITY)
  const served: FaultChannel = {
    ...memory.channel,
    close: () => {
      uffdClosed = true
      memory.channel.close()
    }
  }
  const channel = Channel.make<DaemonMessage>({
    link: daemonEnd,
    from: "guest",
    mailbox: inbox,
    toMessage: PipeMessages.toDaemon,
    ended: () => ({ _tag: "ChannelClosed" })
  })
  const start = UmemDaemon.run({
    uffd: options.wrap?.(served) ?? served,
    link,
    channel,
    inbox,
    blocks: memory.blocks,
    targetPageSize,
    flags,
    remainder,
    counters,
    states
  }).pipe(Effect.forkScoped({ startImmediately: true }))

  return {
    memory,
    counters,
    states,
    requests,
    /** The bytes of the requests, as far as they are few. */
    bytes,
    heard,
    told,
    source,
    guest,
    link,
    page,
    fill,
    eos: RamStream.eos(),
    feed,
    uffdClosed: () => uffdClosed,
    /** What the daemon told the guest's side: the messages' names. */
    tags: () => told.map(({ _tag }) => _tag),
    tell: (message: Uint8Array) => {
      guest.write(message, 0, message.length)
    },
    sourceReading: (on: boolean) => {
      reading = on
      source.watch(on, false)
    },
    guestReading: (on: boolean) => {
      guestReading = on
      guest.watch(on, false)
    },
    /** The daemon's life; it waits for the guest's READY. */
    start,
    /** The same, with the READY said. */
    run: Effect.suspend(() => {
      guest.write(Pipe.ready("guest"), 0, 1)
      return start
    })
  }
})
