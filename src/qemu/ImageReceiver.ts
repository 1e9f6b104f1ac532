/**
 * The destination's role without a guest: what a migration stream brings becomes an image. It takes precopy streams,
 * background snapshots and post-copy streams, each with whatever commands stand in them, and says when the stream is
 * whole. Nothing is written under the image's name before that.
 *
 *   header ─▶ blocks ─▶ pages, discards ─▶ devices (of their own, or in a package) ─▶ EOF
 */
import * as Effect from "effect/Effect"
import { inflateSync } from "node:zlib"
import { MalformedInput } from "../MigrationError.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import * as DeviceSections from "../protocol/qemu/DeviceSections.ts"
import * as Package from "../protocol/qemu/Package.ts"
import type { StreamItem } from "../protocol/qemu/StreamItem.ts"
import * as Xbzrle from "../protocol/qemu/Xbzrle.ts"
import type { Contents, ImageWriter } from "./ImageWriter.ts"
import type { Manifest } from "./Manifest.ts"
import { ImageFailed } from "./QemuError.ts"

export interface ImageReceiver {
  /** Takes an item; throws what the file system says, or a {@link MalformedInput}. Views in it are kept until `flush`. */
  readonly take: (item: StreamItem) => void
  /** Writes what `take` kept. To be called before the decoder gets more bytes. */
  readonly flush: () => void
  /** How the stream stands. */
  readonly progress: () => {
    readonly total: number
    readonly received: number
    /** The source has switched to post-copy. */
    readonly postcopy: boolean
    /** The source waits for an answer on the return path. */
    readonly returnPath: boolean
    /** The last byte of a migration has come. */
    readonly ended: boolean
  }
  /** Makes it an image. */
  readonly commit: (about: Contents["about"]) => Effect.Effect<Manifest, ImageFailed>
}

const malformed = (detail: string) => new MalformedInput({ detail, offset: -1 })

const unpacked = (packed: Uint8Array): Uint8Array => {
  try {
    const page = inflateSync(packed, { maxOutputLength: TARGET_PAGE_SIZE })
    if (page.length === TARGET_PAGE_SIZE) return page
  } catch {
    // told below: whatever zlib says, the page is lost
  }
  throw malformed("a packed page does not unpack to a page")
}

/** `pageSizes`: of a page of each block by name, where the stream may not say it. */
export const make = (writer: ImageWriter, pageSizes: ReadonlyMap<string, number> = new Map()): ImageReceiver => {
  let machine: string | undefined
  let configuration = new Uint8Array(0)
  let devices: Uint8Array | undefined
  let description: Uint8Array | undefined
  let postcopy = false
  let returnPath = false
  let ended = false

  /** A range that is not inside its block would reach into the next one. */
  const inside = (idstr: string, start: number, length: number) => {
    const block = writer.blocks.find((one) => one.idstr === idstr)
    if (block === undefined || start + length > block.length) {
      throw malformed(`${length} bytes at ${start} of block ${idstr} are discarded, where there are none`)
    }
  }

  const take = (item: StreamItem): void => {
    switch (item._tag) {
      case "Configuration":
        machine = item.machine
        configuration = item.bytes.slice()
        return
      case "MemSize":
        return writer.layout(
          item.blocks.map((block) => ({ ...block, pageSize: pageSizes.get(block.idstr) ?? block.pageSize }))
        )
      case "Page":
        return writer.page(item.idstr, item.address, item.data)
      case "Zero":
        if (item.byte === 0) return writer.zero(item.idstr, item.address)
        return writer.page(item.idstr, item.address, new Uint8Array(TARGET_PAGE_SIZE).fill(item.byte))
      case "CompressPage":
        return writer.page(item.idstr, item.address, unpacked(item.packed))
      case "Xbzrle": {
        const page = writer.read(item.idstr, item.address)
        const problem = Xbzrle.apply(page, item.delta)
        if (problem !== undefined) throw malformed(`page ${item.address} of block ${item.idstr}: ${problem}`)
        return writer.page(item.idstr, item.address, page)
      }
      case "OpenReturnPath":
        returnPath = true
        return
      case "PostcopyRamDiscard":
        postcopy = true
        for (const { length, start } of item.ranges) {
          inside(item.idstr, start, length)
          writer.discard(item.idstr, start, length)
        }
        return
      case "Packaged":
        postcopy = true
        devices = Package.devices(item.bytes)
        if (devices === undefined) throw malformed("the package of the post-copy stream is not LISTEN, devices, RUN")
        return
      case "DeviceState":
        devices = item.bytes
        return
      case "VmDescription":
        description = item.text
        ended = true
        return
      case "Eof":
        ended = postcopy
        return
      case "EnableColo":
        throw malformed("the source replicates its guest (COLO): that is no migration")
      default:
        return
    }
  }

  return {
    take,
    flush: () => writer.flush(),
    progress: () => ({ total: writer.totalPages, received: writer.receivedPages, postcopy, returnPath, ended }),
    commit: (about) =>
      Effect.suspend(() => {
        if (machine === undefined || devices === undefined) {
          const detail = "the stream ended before the guest's device state: there is no image"
          return Effect.fail(new ImageFailed({ kind: "damaged", path: writer.path, detail }))
        }
        const sections = description === undefined ? null : DeviceSections.parse(devices, description)
        if (typeof sections === "string") {
          const detail = `the device state is not what the stream's description of it says: ${sections}`
          return Effect.fail(new ImageFailed({ kind: "damaged", path: writer.path, detail }))
        }
        return writer.commit({ machine, configuration, devices, sections, about })
      })
  }
}
