/**
 * What a relay learns from the bytes that pass: how far the migration is, how long the destination waits for the pages
 * that it asks for, and, where one is kept, the image. It never holds up or changes a byte; what it does not understand
 * costs the image, not the migration.
 */
import * as Effect from "effect/Effect"
import type { MalformedInput } from "../MigrationError.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import * as StreamDecoder from "../protocol/qemu/StreamDecoder.ts"
import type { StreamItem } from "../protocol/qemu/StreamItem.ts"
import * as ImageReceiver from "./ImageReceiver.ts"
import type { ImageWriter } from "./ImageWriter.ts"
import type { Manifest } from "./Manifest.ts"
import { PassedPages } from "./PassedPages.ts"
import { ImageFailed } from "./QemuError.ts"
import { StreamTail } from "./StreamTail.ts"

export interface RelayProgress {
  readonly phase: "precopy" | "postcopy" | "completed"
  /** The source has switched to post-copy. */
  readonly postcopy: boolean
  /** Pages whose content has passed; all of them pass at least once. */
  readonly received: number
  readonly total: number
  readonly requests: number
  /** From a request to its page, as they pass: microseconds, sorted. */
  readonly latencies: ReadonlyArray<number>
}

/** One direction of a connection: bytes in, items out until it is not understood. */
interface Tap {
  readonly push: (bytes: Uint8Array) => void
}

/** What a destination says before the list of blocks has passed, at most: a few PONGs. */
const MAX_EARLY_BYTES = 4096
/** Latencies kept, at most: the latest. */
const MAX_LATENCIES = 100_000

export interface RelayTap {
  /** The forward direction of a connection; the second of a migration carries requested pages alone. */
  readonly forward: (channel: "main" | "resumed" | "urgent") => Tap
  /** The return path of a main connection. */
  readonly back: () => Tap
  readonly progress: () => RelayProgress
  /** Whether the destination has said, or the source has shown, that the migration is over and well. */
  readonly completed: () => boolean
  /** Why there will be no image. */
  readonly broken: () => string | undefined
  /** Makes the image, once the migration is completed. */
  readonly commit: Effect.Effect<Manifest, ImageFailed>
}

/** `writer`: takes the pages; without it they are only counted. */
export const make = (writer: ImageWriter | undefined): RelayTap => {
  const receiver = writer === undefined ? undefined : ImageReceiver.make(writer)
  const counted = new PassedPages()
  let blocks: ReadonlyArray<QemuBlock> = []
  let broken: string | undefined
  let shut: number | undefined
  let requests = 0
  let asked = new Map<string, number>()
  /** Of the latest main connection, in either direction. */
  let sent = new StreamTail()
  let answered = new StreamTail()
  const latencies: Array<number> = []

  const arrived = (item: StreamItem) => {
    if (item._tag !== "Page" && item._tag !== "Zero") return
    const key = `${item.idstr} ${item.address}`
    const since = asked.get(key)
    if (since === undefined) return
    asked.delete(key)
    if (latencies.length === MAX_LATENCIES) latencies.shift()
    latencies.push((performance.now() - since) * 1000)
  }
  /** Runs what may throw for bytes of a peer or for the disk. */
  const guarded = (run: () => void) => {
    if (broken !== undefined) return
    try {
      run()
    } catch (error) {
      broken = (error as MalformedInput).detail ?? (error as Error).message
    }
  }

  return {
    forward: (channel) => {
      const tail = new StreamTail()
      if (channel !== "urgent") sent = tail
      if (channel === "resumed" && blocks.length === 0) {
        broken ??= "the relay began in the middle of it, with a recovery"
      }
      let decoder: ReturnType<typeof StreamDecoder.decoder> | undefined
      const begun = () => {
        const made = StreamDecoder.decoder(channel === "main" ? {} : { resumed: blocks })
        // The channel of requested pages is the inside of a section; its decoder is told so.
        if (channel === "urgent") made.push(Uint8Array.of(2, 0, 0, 0, 2))
        return made
      }
      return {
        push: (bytes) => {
          tail.push(bytes)
          guarded(() => {
            // At the first bytes: the channel of requested pages may be there before the list of blocks has passed.
            decoder ??= begun()
            decoder.push(bytes)
            for (let one = decoder.next(); one._tag !== "NeedMore"; one = decoder.next()) {
              if (one._tag === "Malformed") {
                throw new Error(`${one.message} (byte ${one.offset} of the ${channel} stream)`)
              }
              if (one._tag === "End") break
              if (one.message._tag === "MemSize") blocks = one.message.blocks
              arrived(one.message)
              counted.take(one.message)
              receiver?.take(one.message)
            }
            receiver?.flush()
          })
        }
      }
    },
    back: () => {
      const tail = new StreamTail()
      let decoder: ReturnType<typeof ReturnPath.decoder> | undefined
      const early: Array<Uint8Array> = []
      let earlyBytes = 0
      asked = new Map()
      return {
        push: (bytes) => {
          // The channel of requested pages has no return path: its bytes, if any, say nothing.
          answered = tail
          tail.push(bytes)
          guarded(() => {
            // The first answer may overtake the list of blocks, which all later messages name.
            if (blocks.length === 0) {
              early.push(bytes.slice())
              earlyBytes += bytes.length
              if (earlyBytes > MAX_EARLY_BYTES) {
                throw new Error("the destination talks before it has been told of memory")
              }
              return
            }
            decoder ??= ReturnPath.decoder({ blocks })
            for (const piece of early.splice(0)) decoder.push(piece)
            decoder.push(bytes)
            for (let one = decoder.next(); one._tag !== "NeedMore" && one._tag !== "End"; one = decoder.next()) {
              if (one._tag === "Malformed") throw new Error(`${one.message} (byte ${one.offset} of the return path)`)
              const { message } = one
              if (message._tag === "Shut") shut = message.status
              if (message._tag !== "ReqPages") continue
              requests++
              const key = `${message.idstr} ${message.start}`
              if (!asked.has(key)) asked.set(key, performance.now())
            }
          })
        }
      }
    },
    progress: () => {
      const { postcopy, received, total } = counted.progress()
      return {
        phase: shut === 0 ? "completed" : postcopy ? "postcopy" : "precopy",
        postcopy,
        received,
        total,
        requests,
        latencies: latencies.toSorted((a, b) => a - b)
      }
    },
    completed: () => {
      // Of a stream that is not understood the last bytes are.
      if (sent.ended && answered.confirmed) return true
      if (broken !== undefined) return false
      // Without a return path the last byte is all there is to know.
      return counted.progress().returnPath ? shut === 0 : counted.progress().ended
    },
    broken: () => broken,
    commit: Effect.suspend(() => {
      const why = broken ?? (receiver === undefined
        ? "none was asked for"
        : receiver.progress().ended
        ? undefined
        : "its stream ended in the middle of a record")
      if (why === undefined) {
        return receiver!.commit({ qemu: null, vcpus: null, captured: "relayed", guestWas: null, capabilities: [] })
      }
      const detail = `the migration went through, but no image was kept: ${why}`
      return Effect.fail(new ImageFailed({ kind: "damaged", path: writer?.path ?? "", detail }))
    })
  }
}
