/** A small guest's stream in all its forms, with made-up device state, and the bytes seen in captures of real ones. */
import { Bitmap } from "../../../src/protocol/Bitmap.ts"
import type { QemuBlock } from "../../../src/protocol/qemu/QemuBlock.ts"
import * as ReturnPath from "../../../src/protocol/qemu/ReturnPath.ts"
import * as Stream from "../../../src/protocol/qemu/Stream.ts"
import * as RamStream from "../../../src/protocol/umem/RamStream.ts"
import { be32, hex, join } from "../Streams.ts"

export const PAGE = 4096

export const blocks: ReadonlyArray<QemuBlock> = [
  { idstr: "pc.ram", length: 8 * PAGE, pageSize: PAGE },
  { idstr: "pc.bios", length: 2 * PAGE, pageSize: PAGE }
]

/** The block list of a bare 16 MiB machine. */
export const bare: ReadonlyArray<QemuBlock> = [
  { idstr: "pc.ram", length: 0x1000000, pageSize: PAGE },
  { idstr: "/rom@etc/acpi/tables", length: 0x20000, pageSize: PAGE },
  { idstr: "pc.bios", length: 0x40000, pageSize: PAGE },
  { idstr: "pc.rom", length: 0x20000, pageSize: PAGE },
  { idstr: "/rom@etc/table-loader", length: 0x1000, pageSize: PAGE },
  { idstr: "/rom@etc/acpi/rsdp", length: 0x1000, pageSize: PAGE }
]

/** One device section with its description. */
export const device = join(
  Stream.sectionFull({ id: 7, idstr: "timer", instance: 0, version: 2 }),
  new Uint8Array(24).fill(3),
  Stream.footer(7)
)
export const description = new TextEncoder().encode(JSON.stringify({
  page_size: PAGE,
  devices: [{
    name: "timer",
    instance_id: 0,
    vmsd_name: "timer",
    version: 2,
    fields: [{ name: "a", type: "int64", size: 8, array_len: 2 }, { name: "b", type: "int64", size: 8 }]
  }]
}))

export const snapshot: Stream.Snapshot = {
  configuration: Stream.configuration("pc-i440fx-7.2"),
  blocks,
  devices: device
}

export const pageBytes = (seed: number) => Uint8Array.from({ length: PAGE }, (_, i) => (i * 13 + seed * 7 + 1) & 0xff)

/** Records of every page of both blocks, every third one zero. */
export const pages = (): Uint8Array => {
  const encoder = RamStream.encoder()
  const out: Array<Uint8Array> = []
  const buffer = new Uint8Array(512)
  for (const { idstr, length } of blocks) {
    for (let page = 0; page < length / PAGE; page++) {
      if (page % 3 === 0) {
        const n = encoder.fill(buffer, 0, idstr, page * PAGE, 0)
        out.push(buffer.slice(0, n))
      } else {
        const n = encoder.page(buffer, 0, idstr, page * PAGE)
        out.push(buffer.slice(0, n), pageBytes(page))
      }
    }
  }
  return join(...out)
}

const started = join(
  Stream.header(),
  snapshot.configuration,
  Stream.openReturnPath(),
  Stream.ping(1),
  Stream.postcopyAdvise(PAGE),
  Stream.sectionStart({ id: 2, idstr: "ram", instance: 0, version: 4 }),
  Stream.memSize(blocks),
  RamStream.eos(),
  Stream.footer(2)
)

export const precopy = join(
  started,
  Stream.sectionPart(2),
  pages(),
  RamStream.eos(),
  Stream.footer(2),
  Stream.sectionEnd(2),
  RamStream.eos(),
  Stream.footer(2),
  device,
  Stream.eof(),
  Stream.vmDescription(description)
)

export const postcopy = join(Stream.opening(snapshot), pages(), Stream.ending())

export const recovery = join(
  Stream.recvBitmap("pc.ram"),
  Stream.recvBitmap("pc.bios"),
  Stream.postcopyResume(),
  Stream.resuming(),
  pages(),
  Stream.ending()
)

const half = new Bitmap(8)
for (let page = 0; page < 8; page += 2) half.set(page)

export const replies = join(
  ReturnPath.pong(1),
  ReturnPath.reqPages(0, PAGE, "pc.ram"),
  ReturnPath.reqPages(3 * PAGE, PAGE),
  ReturnPath.recvBitmap("pc.ram", half),
  ReturnPath.resumeAck(),
  ReturnPath.shut(0)
)

/** The opening of a 16 MiB guest that a real QEMU accepted, up to the first DISCARD. */
export const acceptedOpening = join(
  hex("51 45 56 4d 00 00 00 03 07 00 00 00 0d 70 63 2d 69 34 34 30 66 78 2d 37 2e 32 08 00 01 00 00 08"),
  hex("00 02 00 04 00 00 00 01 08 00 03 00 10 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00 01 00 00"),
  hex("00 02 03 72 61 6d 00 00 00 00 00 00 00 04 00 00 00 00 01 08 20 04"),
  hex("06", "pc.ram", "00 00 00 00 01 00 00 00"),
  hex("14", "/rom@etc/acpi/tables", "00 00 00 00 00 02 00 00"),
  hex("07", "pc.bios", "00 00 00 00 00 04 00 00"),
  hex("06", "pc.rom", "00 00 00 00 00 02 00 00"),
  hex("15", "/rom@etc/table-loader", "00 00 00 00 00 00 10 00"),
  hex("12", "/rom@etc/acpi/rsdp", "00 00 00 00 00 00 10 00"),
  hex("00 00 00 00 00 00 00 10 7e 00 00 00 02"),
  hex("08 00 06 00 19 00 06 70 63 2e 72 61 6d 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00")
)

/** A name in front of bytes: what a record without CONTINUE begins with. */
export const uuid = join(
  Uint8Array.of(0x07),
  be32(13),
  hex("pc-i440fx-7.2"),
  hex("05 12", "configuration/uuid", "00 00 00 01 12 34 56 78 9a bc de f0 11 22 33 44 55 66 77 88")
)
