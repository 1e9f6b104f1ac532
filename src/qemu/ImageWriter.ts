/**
 * Writes an image beside its final name and renames it there once all of it is on disk: an image exists whole or not at
 * all, and nothing is ever overwritten. Pages may come in any order and again and again; the last content counts. Runs
 * of pages are written at once. Zero pages take no room.
 *
 * Hot path: no Effect per page.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { hash } from "node:crypto"
import * as fs from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { Bitmap } from "../protocol/Bitmap.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"
import type { DeviceSection } from "../protocol/qemu/DeviceSections.ts"
import type { QemuBlock } from "../protocol/qemu/QemuBlock.ts"
import * as ReceivedBitmap from "../protocol/qemu/ReceivedBitmap.ts"
import * as Image from "./Image.ts"
import { files, FORMAT, type Manifest, VERSION } from "./Manifest.ts"
import { ImageFailed } from "./QemuError.ts"

/** Pages written at once: more than a run of them between two reads of the link can be. */
const MAX_RUN = 256

/** All of an image but its memory. */
export interface Contents {
  readonly machine: string
  readonly configuration: Uint8Array
  readonly devices: Uint8Array
  readonly sections: ReadonlyArray<DeviceSection> | null
  readonly about: Pick<Manifest, "qemu" | "vcpus" | "captured" | "guestWas" | "capabilities">
}

export class ImageWriter {
  readonly path: string
  readonly #partial: string
  readonly #fd: number
  #blocks: ReadonlyArray<QemuBlock> = []
  /** First page of each block by name, in the numbering over all blocks. */
  readonly #bases = new Map<string, number>()
  #stored = new Bitmap(0)
  #received = new Bitmap(0)
  /** The run of pages not written yet. */
  #run: Array<Uint8Array> = []
  #runAt = 0

  /** @throws SystemError */
  constructor(path: string) {
    this.path = path
    this.#partial = fs.mkdtempSync(join(dirname(path), `.${basename(path)}.partial-`))
    this.#fd = fs.openSync(join(this.#partial, files.memory), "wx+", 0o600)
  }

  get blocks(): ReadonlyArray<QemuBlock> {
    return this.#blocks
  }

  get totalPages(): number {
    return this.#received.length
  }

  /** Pages whose content is known. */
  get receivedPages(): number {
    return this.#received.count
  }

  /** Lays the memory file out. @throws SystemError */
  layout(blocks: ReadonlyArray<QemuBlock>): void {
    this.#blocks = blocks
    let base = 0
    for (const { idstr, length } of blocks) {
      this.#bases.set(idstr, base)
      base += length / TARGET_PAGE_SIZE
    }
    this.#stored = new Bitmap(base)
    this.#received = new Bitmap(base)
    fs.ftruncateSync(this.#fd, base * TARGET_PAGE_SIZE)
  }

  /** Takes a page's bytes by reference until {@link flush}. @throws SystemError */
  page(idstr: string, address: number, data: Uint8Array): void {
    const page = this.#pageAt(idstr, address)
    this.#stored.set(page)
    this.#received.set(page)
    if (page !== this.#runAt + this.#run.length || this.#run.length === MAX_RUN) {
      this.flush()
      this.#runAt = page
    }
    this.#run.push(data)
  }

  zero(idstr: string, address: number): void {
    const page = this.#pageAt(idstr, address)
    // The run may hold an older content of this page: that it is not held decides, not what the file says.
    this.#stored.clear(page)
    this.#received.set(page)
  }

  /** The page's content as it is now. @throws SystemError */
  read(idstr: string, address: number): Uint8Array {
    this.flush()
    const out = new Uint8Array(TARGET_PAGE_SIZE)
    const page = this.#pageAt(idstr, address)
    if (this.#stored.test(page)) fs.readSync(this.#fd, out, 0, out.length, page * TARGET_PAGE_SIZE)
    return out
  }

  /** Forgets pages: they will come again. */
  discard(idstr: string, start: number, length: number): void {
    const first = this.#pageAt(idstr, start)
    for (let page = first; page < first + length / TARGET_PAGE_SIZE; page++) this.#received.clear(page)
  }

  /** A block's pages whose content is known. */
  received(idstr: string): Bitmap {
    const base = this.#bases.get(idstr) ?? 0
    const block = this.#blocks.find((one) => one.idstr === idstr)
    const bitmap = new Bitmap((block?.length ?? 0) / TARGET_PAGE_SIZE)
    for (let page = 0; page < bitmap.length; page++) if (this.#received.test(base + page)) bitmap.set(page)
    return bitmap
  }

  /** Writes the run; the caller's bytes are free again. @throws SystemError */
  flush(): void {
    if (this.#run.length === 0) return
    let left: Array<Uint8Array> = this.#run
    let at = this.#runAt * TARGET_PAGE_SIZE
    this.#run = []
    while (left.length > 0) {
      let n = fs.writevSync(this.#fd, left, at)
      at += n
      // A short write is how a full disk begins; the next one says so.
      while (left.length > 0 && n >= left[0]!.length) n -= left.shift()!.length
      if (n > 0) left = [left[0]!.subarray(n), ...left.slice(1)]
    }
  }

  /** Puts the rest beside the memory, all of it on disk, and gives the image its name. */
  commit(contents: Contents): Effect.Effect<Manifest, ImageFailed> {
    const failed = (error: unknown) => {
      const { code, message } = error as NodeJS.ErrnoException
      const taken = code === "ENOTEMPTY" || code === "EEXIST"
      return new ImageFailed({
        kind: taken ? "exists" : "unwritable",
        path: this.path,
        detail: taken
          ? `${this.path} appeared meanwhile and is left alone; save under another name`
          : `cannot write the image ${this.path} (${code ?? message})`
      })
    }
    const trying = <A>(run: () => A) => Effect.try({ try: run, catch: failed })
    return Effect.gen({ self: this }, function*() {
      const missing = this.totalPages - this.receivedPages
      if (missing > 0 || this.totalPages === 0) {
        return yield* new ImageFailed({
          kind: "damaged",
          path: this.path,
          detail: `${missing} pages of the guest never came: there is no image`
        })
      }
      yield* trying(() => {
        this.flush()
        fs.fsyncSync(this.#fd)
      })
      const memory = yield* Effect.scoped(Image.digest(join(this.#partial, files.memory), this.#stored))
      const pages = ReceivedBitmap.encode(this.#stored)
      let offset = 0
      const manifest: Manifest = {
        format: FORMAT,
        version: VERSION,
        machine: contents.machine,
        configuration: Buffer.from(contents.configuration).toString("base64"),
        ...contents.about,
        createdAt: new Date().toISOString(),
        blocks: this.#blocks.map(({ idstr, length, pageSize }) => {
          const base = offset / TARGET_PAGE_SIZE
          let stored = 0
          const end = base + length / TARGET_PAGE_SIZE
          for (let page = this.#stored.nextSet(base); page >= 0 && page < end; page = this.#stored.nextSet(page + 1)) {
            stored++
          }
          const block = { idstr, length, pageSize, offset, stored }
          offset += length
          return block
        }),
        devices: { length: contents.devices.length, sha256: hash("sha256", contents.devices) },
        pages: { length: pages.length, sha256: hash("sha256", pages) },
        memory: { length: offset, sha256: memory },
        sections: contents.sections
      }
      yield* trying(() => {
        this.#write(files.devices, contents.devices)
        this.#write(files.pages, pages)
        this.#write(files.manifest, Buffer.from(`${JSON.stringify(manifest, undefined, 2)}\n`))
        syncDirectory(this.#partial)
        fs.chmodSync(this.#partial, 0o700)
        fs.renameSync(this.#partial, this.path)
        syncDirectory(dirname(this.path))
      })
      return manifest
    })
  }

  /** Lets go of the file and removes what was not committed. */
  close(): void {
    fs.closeSync(this.#fd)
    fs.rmSync(this.#partial, { recursive: true, force: true })
  }

  #write(name: string, bytes: Uint8Array): void {
    const fd = fs.openSync(join(this.#partial, name), "wx", 0o600)
    try {
      for (let at = 0; at < bytes.length;) at += fs.writeSync(fd, bytes, at)
      fs.fsyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  }

  #pageAt(idstr: string, address: number): number {
    return this.#bases.get(idstr)! + address / TARGET_PAGE_SIZE
  }
}

const syncDirectory = (path: string): void => {
  const fd = fs.openSync(path, "r")
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/** A writer for an image that does not exist yet; what is not committed is gone at the end of the scope. */
export const make = (given: string): Effect.Effect<ImageWriter, ImageFailed, Scope.Scope> =>
  Effect.suspend(() => {
    const path = resolve(given)
    if (fs.existsSync(path)) {
      return Effect.fail(
        new ImageFailed({
          kind: "exists",
          path,
          detail: `${path} exists and is left alone; save under another name, or remove it first`
        })
      )
    }
    return Effect.acquireRelease(
      Effect.try({
        try: () => new ImageWriter(path),
        catch: (error) => {
          const { code, message } = error as NodeJS.ErrnoException
          return new ImageFailed({
            kind: "unwritable",
            path,
            detail: `cannot write an image at ${path} (${code ?? message})`
          })
        }
      }),
      (writer) => Effect.sync(() => writer.close())
    )
  })
