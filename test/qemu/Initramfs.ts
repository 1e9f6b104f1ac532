/**
 * An initramfs in the kernel's own format (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst): the
 * files, directories and devices that the Linux guest starts with, uncompressed, so that an emulated machine need not
 * unpack them.
 */

export interface Entry {
  readonly path: string
  /** Type and permissions, as stat has them. */
  readonly mode: number
  readonly data?: Uint8Array
  /** Major and minor number of a device. */
  readonly device?: readonly [number, number]
}

export const DIRECTORY = 0o040755
export const EXECUTABLE = 0o100755
export const CHARACTER_DEVICE = 0o020600

/** Headers with their names, and files, each begin at a multiple of it. */
const ALIGNMENT = 4

const padding = (length: number) => Buffer.alloc((ALIGNMENT - length % ALIGNMENT) % ALIGNMENT)

const record = ({ data = new Uint8Array(0), device = [0, 0], mode, path }: Entry, inode: number): Buffer => {
  const name = Buffer.from(`${path}\0`)
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, ...device, name.length, 0]
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`)
  return Buffer.concat([header, name, padding(header.length + name.length), data, padding(data.length)])
}

/** The archive; directories must come before what is in them. */
export const pack = (entries: ReadonlyArray<Entry>): Buffer =>
  Buffer.concat([...entries, { path: "TRAILER!!!", mode: 0 }].map((entry, i) => record(entry, i + 1)))
