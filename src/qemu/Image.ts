/**
 * An image on disk, opened for reading: a directory with a manifest, the device state, a bitmap of the pages that are
 * not zero, and a sparse file of memory. Opening checks everything but the memory itself, which is mapped and only
 * touched page by page; `verify` reads all of it.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { createHash, hash } from "node:crypto"
import * as fs from "node:fs"
import { join } from "node:path"
import type { Region } from "userfaultfd-napi"
import * as Binding from "../native/Binding.ts"
import type { Addon } from "../native/Binding.ts"
import { Bitmap } from "../protocol/Bitmap.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import * as ReceivedBitmap from "../protocol/qemu/ReceivedBitmap.ts"
import type { Snapshot } from "../protocol/qemu/Stream.ts"
import { RANGE_WORDS, type SourceBlock } from "../services/GuestMemory.ts"
import { plainDescriptor } from "../services/Link.ts"
import { decode, files, type Manifest } from "./Manifest.ts"
import { ImageFailed } from "./QemuError.ts"

/**
 * Bytes read through a mapping before its pages are let go of: they stay in the page cache, which all restores share. The
 * calls are a thousandth of the time of sending so much.
 */
const RESIDENT_BYTES = 1024 * 1024
const EIO = 5
const ENOSYS = 38
const MADV_DONTNEED = 4
/** Bytes read at once by `verify`. */
const VERIFY_BYTES = 1024 * 1024

export interface Image {
  readonly path: string
  readonly manifest: Manifest
  readonly snapshot: Snapshot
  /** Pages of all blocks, in order, that are not zero. */
  readonly stored: Bitmap
}

const failed = (path: string, detail: string, kind: ImageFailed["kind"] = "damaged") =>
  new ImageFailed({ kind, path, detail })

const reading = <A>(path: string, read: () => A): Effect.Effect<A, ImageFailed> =>
  Effect.try({
    try: read,
    catch: (error) => {
      const { code, message } = error as NodeJS.ErrnoException
      return failed(
        path,
        `cannot read ${path} (${code ?? message}); give the directory that qemu save wrote`,
        "unreadable"
      )
    }
  })

/** Pages of a block list, all together. */
export const pagesOf = (blocks: ReadonlyArray<{ readonly length: number }>): number =>
  blocks.reduce((sum, { length }) => sum + length / TARGET_PAGE_SIZE, 0)

/** Why the blocks of a manifest cannot be. */
const wrongBlocks = ({ blocks, memory }: Manifest): string | undefined => {
  let offset = 0
  for (const block of blocks) {
    const { idstr, length } = block
    if (Buffer.byteLength(idstr) === 0 || Buffer.byteLength(idstr) > 255) return "a block has no name"
    if (length <= 0 || length % TARGET_PAGE_SIZE !== 0) return `block ${idstr} has ${length} bytes`
    if (block.offset !== offset) return `block ${idstr} is not behind the one before it`
    if (block.pageSize < TARGET_PAGE_SIZE || length % block.pageSize !== 0 || Math.log2(block.pageSize) % 1 !== 0) {
      return `block ${idstr} has pages of ${block.pageSize} bytes`
    }
    offset += length
  }
  return offset !== memory.length ? `its blocks have ${offset} bytes, its memory ${memory.length}` : undefined
}

/** Reads and checks all of an image but its memory. */
export const open = (path: string): Effect.Effect<Image, ImageFailed> =>
  Effect.gen(function*() {
    const at = (name: string) => join(path, name)
    const json = yield* reading(at(files.manifest), () =>
      JSON.parse(fs.readFileSync(at(files.manifest), "utf8")) as unknown)
    const manifest = Option.getOrUndefined(decode(json))
    if (manifest === undefined) {
      return yield* failed(
        at(files.manifest),
        `${at(files.manifest)} is no manifest of an image that is understood here`
      )
    }
    const wrong = wrongBlocks(manifest)
    if (wrong !== undefined) {
      return yield* failed(at(files.manifest), `the image ${path} cannot be: ${wrong}`)
    }
    const checked = Effect.fnUntraced(function*(name: "devices" | "pages") {
      const bytes = yield* reading(at(name), () =>
        new Uint8Array(fs.readFileSync(at(name))))
      const { length, sha256 } = manifest[name]
      if (bytes.length !== length || hash("sha256", bytes) !== sha256) {
        return yield* failed(
          at(name),
          `${at(name)} is damaged: its checksum is not that of the manifest; restore another copy`
        )
      }
      return bytes
    })
    const devices = yield* checked("devices")
    const pages = yield* checked("pages")
    const total = pagesOf(manifest.blocks)
    if (pages.length !== ReceivedBitmap.bytesFor(total)) {
      return yield* failed(at(files.pages), `${at(files.pages)} does not fit the ${total} pages of the image`)
    }
    const { size } = yield* reading(at(files.memory), () => fs.statSync(at(files.memory)))
    if (size !== manifest.memory.length) {
      return yield* failed(
        at(files.memory),
        `${at(files.memory)} has ${size} bytes, not ${manifest.memory.length}: it is cut`
      )
    }
    const blocks: ReadonlyArray<QemuBlock> = manifest.blocks.map(({ idstr, length, pageSize }) => ({
      idstr,
      length,
      pageSize
    }))
    const configuration = new Uint8Array(Buffer.from(manifest.configuration, "base64"))
    return { path, manifest, snapshot: { configuration, blocks, devices }, stored: ReceivedBitmap.decode(pages, total) }
  })

/** How the bytes of a block are read and sent; a hole is not asked for. */
type Access = Pick<SourceBlock, "read" | "send">

/** Through a shared mapping. What was touched is let go of again and again, so that it does not add up. */
const mapped = (addon: Addon, region: Region): Access => {
  let resident = 0
  const touched = (bytes: number) => {
    resident += bytes
    if (resident < RESIDENT_BYTES) return
    resident = 0
    region.madvise(0, region.length, MADV_DONTNEED)
  }
  return {
    read: (offset, into, at, length) => {
      const n = region.read(offset, into, at, length)
      touched(length)
      return n
    },
    send: (link, ranges, count, flags, _fillFlags, rest) => {
      const descriptor = plainDescriptor(link)
      if (descriptor === undefined) return -ENOSYS
      // Whole, also those of one byte: QEMU takes only zero as a fill byte to be sure of, and zero pages are holes.
      const n = addon.sendRanges(descriptor, region, ranges, count, flags, 0, rest)
      touched(count * TARGET_PAGE_SIZE)
      return n
    }
  }
}

/** Where the file cannot be mapped: it may not be written (mappings are made for both), or there is no addon. */
const direct = (fd: number, base: number): Access => ({
  read: (offset, into, at, length) => {
    try {
      return fs.readSync(fd, into, at, length, base + offset)
    } catch (error) {
      return (error as NodeJS.ErrnoException).errno ?? -EIO
    }
  }
})

const opened = (path: string, flags: string): Effect.Effect<number, ImageFailed, Scope.Scope> =>
  Effect.acquireRelease(reading(path, () => fs.openSync(path, flags)), (fd) => Effect.sync(() => fs.closeSync(fd)))

/** A mapping for each block: a page's address in its block is what the stream says of it. */
const mapping = Effect.fnUntraced(function*(path: string, blocks: Manifest["blocks"]) {
  const addon = Binding.load()
  if (addon === undefined) return undefined
  const fd = yield* opened(path, "r+")
  return yield* Effect.forEach(blocks, ({ length, offset }) =>
    Effect.acquireRelease(
      reading(path, () => {
        const descriptor = addon.Descriptor.duplicate(fd)
        try {
          return addon.Region.map(descriptor, offset, length)
        } finally {
          descriptor.close()
        }
      }),
      (region) => Effect.sync(() => region.close())
    ).pipe(Effect.map((region) => mapped(addon, region))))
})

/** A block of an image: `access` to the file where it has a page, zeros where it has a hole, which is never touched. */
const blockOf = (
  { idstr, length, pageSize }: QemuBlock,
  isStored: (offset: number) => boolean,
  { read, send }: Access
): SourceBlock => ({
  idstr,
  length,
  hostPageSize: pageSize,
  fillByte: (offset) => isStored(offset) ? -1 : 0,
  read: (offset, into, at, n) => {
    const done = read(offset, into, at, n)
    return done === n || done < 0 ? done : -EIO
  },
  gather: (ranges, count, into, at) => {
    let end = at
    let done = 0
    for (; done < count; done++) {
      const words = done * RANGE_WORDS
      const offset = ranges[words]!
      const n = ranges[words + 1]!
      const start = end + ranges[words + 2]!
      if (start + n > into.length) break
      const stored = isStored(offset)
      ranges[words + 3] = stored ? -1 : 0
      if (!stored) into[start] = 0
      else if (read(offset, into, start, n) !== n) return done > 0 ? done : -EIO
      end = start + (stored ? n : 1)
    }
    return done
  },
  ...(send !== undefined && {
    send: (link, ranges, count, flags, fillFlags, rest) => {
      for (let i = 0; i < count; i++) if (!isStored(ranges[i * RANGE_WORDS]!)) return -ENOSYS
      return send(link, ranges, count, flags, fillFlags, rest)
    }
  })
})

/** The image's blocks as the sender reads them, until the scope ends. `blocks`: as the destination has them. */
export const memory = (
  { manifest, path, stored }: Image,
  blocks: ReadonlyArray<QemuBlock>
): Effect.Effect<ReadonlyArray<SourceBlock>, ImageFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const file = join(path, files.memory)
    const regions = Option.getOrUndefined(yield* Effect.option(mapping(file, manifest.blocks)))
    const fd = regions === undefined ? yield* opened(file, "r") : -1
    return manifest.blocks.map(({ offset }, i): SourceBlock => {
      const base = offset / TARGET_PAGE_SIZE
      const isStored = (at: number) => stored.test(base + at / TARGET_PAGE_SIZE)
      return blockOf(blocks[i]!, isStored, regions?.[i] ?? direct(fd, offset))
    })
  })

/** The checksum over the held pages of a memory file, run by run; yields between two reads. */
export const digest = (path: string, stored: Bitmap): Effect.Effect<string, ImageFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const sha = createHash("sha256")
    const buffer = new Uint8Array(VERIFY_BYTES)
    const most = VERIFY_BYTES / TARGET_PAGE_SIZE
    const fd = yield* opened(path, "r")
    for (let page = stored.nextSet(0); page >= 0;) {
      const clear = stored.nextClear(page)
      const end = Math.min(clear < 0 ? stored.length : clear, page + most)
      const length = (end - page) * TARGET_PAGE_SIZE
      const n = yield* reading(path, () => fs.readSync(fd, buffer, 0, length, page * TARGET_PAGE_SIZE))
      if (n !== length) return yield* failed(path, `${path} ends at byte ${page * TARGET_PAGE_SIZE + n}: it is cut`)
      sha.update(buffer.subarray(0, length))
      page = stored.nextSet(end)
      yield* Effect.yieldNow
    }
    return sha.digest("hex")
  })

/** Reads all of an image's memory and compares. */
export const verify = ({ manifest, path, stored }: Image): Effect.Effect<void, ImageFailed> =>
  Effect.gen(function*() {
    let from = 0
    for (const { idstr, length, stored: held } of manifest.blocks) {
      let count = 0
      const to = from + length / TARGET_PAGE_SIZE
      for (let page = stored.nextSet(from); page >= 0 && page < to; page = stored.nextSet(page + 1)) count++
      if (count !== held) {
        return yield* failed(join(path, files.pages), `block ${idstr} has ${count} pages, not ${held}`)
      }
      from = to
    }
    const file = join(path, files.memory)
    if ((yield* digest(file, stored)) !== manifest.memory.sha256) {
      return yield* failed(file, `${file} is damaged: its checksum is not that of the manifest; restore another copy`)
    }
  }).pipe(Effect.scoped)
