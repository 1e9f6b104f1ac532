/** Images and restores as people read them. */
import type { Manifest } from "../qemu/Manifest.ts"

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 1)} MiB`

/** What every event about an image carries. */
export const summary = ({ blocks, captured, devices, machine, qemu, vcpus }: Manifest) => ({
  machine,
  qemu,
  vcpus,
  captured,
  memoryBytes: blocks.reduce((sum, { length }) => sum + length, 0),
  storedBytes: blocks.reduce((sum, { stored }) => sum + stored * 4096, 0),
  deviceBytes: devices.length
})

/** `pc-i440fx-7.2, 256.0 MiB of memory (31.2 MiB stored), 13.2 KiB of device state` */
export const describeSize = (manifest: Manifest): string => {
  const { deviceBytes, machine, memoryBytes, storedBytes } = summary(manifest)
  return `${machine}, ${mebibytes(memoryBytes)} of memory (${mebibytes(storedBytes)} stored), ${
    (deviceBytes / 1024).toFixed(1)
  } KiB of device state`
}

/** `saving 1234/16384 pages (8 %)` */
export const progress = (verb: string, done: number, total: number): string =>
  `${verb} ${done}/${total} pages (${total === 0 ? 0 : Math.floor(100 * done / total)} %)`

/** A manifest as a table. */
export const describe = (manifest: Manifest): string => {
  const { blocks, captured, createdAt, devices, guestWas, qemu, sections, vcpus } = manifest
  return [
    describeSize(manifest),
    `  captured ${createdAt}, ${captured}${guestWas === null ? "" : `; the guest was ${guestWas}`}`,
    `  QEMU ${qemu ?? "unknown"}, ${vcpus ?? "?"} vCPU${vcpus === 1 ? "" : "s"}`,
    `  start the destination with the same -machine ${manifest.machine}, -m, -smp and devices`,
    ...blocks.map(({ idstr, length, pageSize, stored }) =>
      `  ${idstr.padEnd(32)}${mebibytes(length).padStart(12)}${mebibytes(stored * 4096).padStart(12)} stored${
        pageSize === 4096 ? "" : `, pages of ${pageSize / 1024} KiB`
      }`
    ),
    `  devices${String(devices.length).padStart(37)} bytes${sections === null ? "" : `, ${sections.length} sections`}`
  ].join("\n")
}
