// What the tests need of the host, and why they skip without it.
import * as Uffd from "userfaultfd-napi"

const { constants, pageSize } = Uffd
const found = Uffd.probe()

/** Faults of the tests are user-mode faults, so any user may run them where the kernel has userfaultfd. */
export const available = found.userModeOnly.available
export const has = (feature: number): boolean => available && (found.features & feature) !== 0

if (!available) {
  const why = Uffd.errnoName(found.userModeOnly.errno)
  process.stderr.write(`userfaultfd tests are skipped: the system call gives ${why} even for user-mode faults\n`)
}

export const P = pageSize

export const open = (required = 0): Uffd.Descriptor => Uffd.open({ required, userModeOnly: true }).descriptor

/** A page full of one byte. */
export const page = (byte: number, pages = 1): Uint8Array => new Uint8Array(pages * P).fill(byte)

export interface Guest extends Disposable {
  readonly uffd: Uffd.Descriptor
  readonly region: Uffd.Region
  /** The address of a page. */
  readonly at: (index: number) => number
}

/** `region` registered with a new userfaultfd; both are closed at the end of the scope. */
export const guest = (
  options: {
    readonly region: Uffd.Region
    readonly required?: number
    readonly mode?: number
  }
): Guest => {
  const uffd = open(options.required)
  Uffd.register(uffd, options.region.address, options.region.length, options.mode ?? constants.MODE_MISSING)
  return {
    uffd,
    region: options.region,
    at: (index) => options.region.address + index * P,
    [Symbol.dispose]: () => {
      // In this order: the unmapping would wait for a reader of its event.
      uffd.close()
      options.region.close()
    }
  }
}

/** A guest of `pages` anonymous pages, none of them present. */
export const anonymous = (pages: number, required = 0): Guest =>
  guest({ region: Uffd.Region.anonymous(pages * P), required })
