// Everything that can be opened, opened, used and closed.
import * as Uffd from "userfaultfd-napi"
import { P, page } from "./Kernel.ts"

const { constants, DirtyTracker, FaultPoller, Poller, Region } = Uffd

/** So much that a region which stays in each cycle is seen in the memory of the process: 256 KiB. */
const PAGES = 64
const bytes = page(1, PAGES)

/** `close` false: all of it is left to the end of the environment and to the collector. */
export const cycle = async (close = true): Promise<void> => {
  const { descriptor: uffd } = Uffd.open({ userModeOnly: true })
  const region = Region.anonymous(PAGES * P)
  Uffd.register(uffd, region.address, region.length, constants.MODE_MISSING)
  const poller = new FaultPoller(uffd, new Float64Array(16))
  poller.start(() => {})
  poller.unref()
  const vector = Float64Array.of(region.address, 0, PAGES * P, constants.INSTALL_COPY, 0, 0)
  Uffd.installPages(uffd, vector, 0, 1, bytes)
  region.buffer()
  const shared = Region.memfd("cycle", 4 * P)
  shared.write(0, page(2), 0, P)
  const file = shared.descriptor()!
  const view = Region.map(file, 0, P)
  const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
  const readable = new Poller(a)
  readable.watch(constants.READABLE, () => {})
  readable.unref()
  Uffd.sendDescriptors(b, page(1), [file, uffd])
  const { descriptors } = Uffd.receiveDescriptors(a, page(0))
  const adopted = [Uffd.Descriptor.adopt(uffd.share()), Region.adopt(region.share())]
  const tracker = Uffd.probe().features >= constants.FEATURE_WP_ASYNC ? [new DirtyTracker(shared)] : []
  for (const each of tracker) each.getAndReprotect()
  const owned = [readable, poller, ...descriptors, ...adopted, ...tracker, uffd, file, view, shared, region, a, b]
  if (close) { for (const owner of owned) owner.close() }
  await new Promise((resolve) => setImmediate(resolve))
}
