/** The golden vectors of the wire formats, with the message each of them is. */
import type { PipeMessage } from "../../src/protocol/umem/Pipe.ts"
import type { RamRecord } from "../../src/protocol/umem/RamStream.ts"
import type { Request } from "../../src/protocol/umem/Request.ts"
import { hex, join } from "./Streams.ts"

const pages = (...numbers: ReadonlyArray<number>) => Float64Array.from(numbers)

/** One 16 MiB block. */
export const pcRam = { idstr: "pc.ram", length: 16 * 2 ** 20 }

export interface RequestVector {
  readonly number: number
  readonly bytes: Uint8Array
  readonly request: Request
  /** Whether a block must have been named before. */
  readonly continues?: boolean
}

export const requests: ReadonlyArray<RequestVector> = [
  { number: 1, bytes: hex("00"), request: { _tag: "Init", cmd: 0 } },
  { number: 2, bytes: hex("06"), request: { _tag: "Eoc", cmd: 6 } },
  {
    number: 3,
    bytes: hex("01 06", "pc.ram", "00 00 00 01 00 00 00 00 00 00 00 00"),
    request: { _tag: "OnDemand", cmd: 1, idstr: "pc.ram", pages: pages(0) }
  },
  {
    number: 5,
    bytes: hex("02 00 00 00 02 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 11"),
    request: { _tag: "OnDemandCont", cmd: 2, idstr: "pc.ram", pages: pages(0x10, 0x11) },
    continues: true
  },
  {
    number: 7,
    bytes: hex("04 00 00 00 01 00 00 00 00 00 00 00 10"),
    request: { _tag: "BackgroundCont", cmd: 4, idstr: "pc.ram", pages: pages(0x10) },
    continues: true
  },
  {
    number: 9,
    bytes: hex("01 06", "pc.ram", "00 00 00 00"),
    request: { _tag: "OnDemand", cmd: 1, idstr: "pc.ram", pages: pages() }
  }
]

/** A page whose bytes count up, modulo 256. */
export const countingPage = Uint8Array.from({ length: 4096 }, (_, i) => i % 256)

export const ram: ReadonlyArray<{ readonly number: number; readonly bytes: Uint8Array; readonly record: RamRecord }> = [
  {
    number: 11,
    bytes: join(hex("00 00 00 00 00 00 50 08 06", "pc.ram"), countingPage),
    record: { _tag: "Page", idstr: "pc.ram", address: 0x5000, data: countingPage, continued: false }
  },
  {
    number: 13,
    bytes: hex("00 00 00 00 00 00 30 02 06", "pc.ram", "ff"),
    record: { _tag: "Fill", idstr: "pc.ram", address: 0x3000, byte: 0xff, continued: false }
  },
  { number: 15, bytes: hex("00 00 00 00 00 00 00 10"), record: { _tag: "Eos" } }
]
export const page11Sha256 = "a8649d94307fa34458921f0db6d0a40a6b0cacd3512708627e906b1afd69d6c9"

export const header = hex("51 45 56 4d 00 00 00 03")
export const startRam = hex(
  "01 00 00 00 02 03",
  "ram",
  "00 00 00 00 00 00 00 04 00 00 00 00 01 00 00 04 06",
  "pc.ram",
  "00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 10"
)
export const partRam = hex("02 00 00 00 02 00 00 00 00 00 00 00 10")
export const endRam = hex("03 00 00 00 02 00 00 00 00 00 00 00 10")

/** The whole stream up to the switchover: `block` 1, `ram` 2 with one 16 MiB block, and a toy device `dev0` 3. */
export const savevm = join(
  header,
  hex("01 00 00 00 01 05", "block", "00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02"),
  startRam,
  hex("02 00 00 00 01 00 00 00 00 00 00 00 02"),
  partRam,
  hex("03 00 00 00 01 00 00 00 00 00 00 00 02"),
  endRam,
  hex("04 00 00 00 03 04", "dev0", "00 00 00 00 00 00 00 01 de ad be ef"),
  hex("00")
)
export const savevmSha256 = "13bb88fcc0fc5f020d2fa4580c9139daac5d0656b6851b2bbd6dbe3beadda005"

export const pipe: ReadonlyArray<
  { readonly number: number; readonly bytes: Uint8Array; readonly message: PipeMessage }
> = [
  { number: 21, bytes: hex("52"), message: { _tag: "Ready", from: "daemon" } },
  { number: 21, bytes: hex("72"), message: { _tag: "Ready", from: "guest" } },
  { number: 21, bytes: hex("51"), message: { _tag: "Quit", from: "daemon" } },
  { number: 21, bytes: hex("71"), message: { _tag: "Quit", from: "guest" } },
  { number: 21, bytes: hex("45"), message: { _tag: "Error", from: "daemon" } },
  {
    number: 22,
    bytes: hex("54 02 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00"),
    message: { _tag: "TriggerPageFault", from: "daemon", pages: pages(5, 6) }
  },
  {
    number: 23,
    bytes: hex("74 02 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00"),
    message: { _tag: "PageFaulted", from: "guest", pages: pages(5, 6) }
  }
]
export const pipeBigEndian = hex("54 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06")
export const postcopyInit = hex("10 00 00 00 00 08 00 00 00 00 00 00 00 01")
