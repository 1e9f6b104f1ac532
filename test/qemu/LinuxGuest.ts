/**
 * A Linux guest: Debian's kernel, its static busybox, and `linux/init`, which verifies checksums over memory and ticks as
 * the guest of `guest.S` does. `linux/fetch.sh` brings the two from Debian; where they are not, it says how to get them.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Initramfs from "./Initramfs.ts"
import type { Options } from "./Machine.ts"

const { POSTCOPY_LINUX_GUEST, XDG_CACHE_HOME } = process.env
const home = POSTCOPY_LINUX_GUEST ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "postcopy", "linux-guest")
const kernel = join(home, "vmlinuz")
const busybox = join(home, "busybox")

/** Why there is no Linux guest here; `undefined` where there is. */
export const missing: string | undefined = [kernel, busybox].every((path) => existsSync(path))
  ? undefined
  : `no Debian kernel in ${home}: run test/qemu/linux/fetch.sh`

/** Only what may be wrong is said; the kernel's own clock is the machine's, not the one that it would measure. */
const COMMAND_LINE = "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic rdinit=/init random.trust_cpu=on tsc=unstable"

/** A machine that starts it. */
export const machine = (directory: string): Options => {
  const initramfs = join(directory, "initramfs")
  writeFileSync(
    initramfs,
    Initramfs.pack([
      ...["bin", "dev", "held", "proc"].map((path) => ({ path, mode: Initramfs.DIRECTORY })),
      { path: "dev/console", mode: Initramfs.CHARACTER_DEVICE, device: [5, 1] },
      { path: "bin/busybox", mode: Initramfs.EXECUTABLE, data: readFileSync(busybox) },
      {
        path: "init",
        mode: Initramfs.EXECUTABLE,
        data: readFileSync(fileURLToPath(new URL("./linux/init", import.meta.url)))
      }
    ])
  )
  // A kernel that gives up ends the machine, and with it the waiting for it.
  return { memoryMiB: 256, boot: ["-no-reboot", "-kernel", kernel, "-initrd", initramfs, "-append", COMMAND_LINE] }
}

/** The checksums' own checksum, as each pass told it. */
export const sums = (console: string): ReadonlyArray<string> =>
  [...console.matchAll(/SUMS ([0-9a-f]{32})/g)].map(([, sum]) => sum!)
