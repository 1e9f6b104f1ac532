// What waits in the queue of a userfaultfd, looked at without reading it.
import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"

/** Resolves when the descriptor is readable and `condition` holds; nothing is read from it. */
export const queued = (uffd: Uffd.Descriptor, condition: () => boolean = () => true): Promise<void> =>
  new Promise((resolve) => {
    const poller = new Uffd.Poller(uffd)
    poller.watch(Uffd.constants.READABLE, () => {
      if (!condition()) return
      poller.close()
      resolve()
    })
  })

/** How many faults wait to be read: the kernel's own count. */
export const pendingFaults = (uffd: Uffd.Descriptor): number =>
  Number(/pending:\s+(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${uffd.fd}`, "utf8"))![1])
