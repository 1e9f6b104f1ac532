// The same handler in Node: a callback of uv_poll for each burst, a copy for each fault.
"use strict"

const uffd = require("userfaultfd-napi")

const socket = uffd.Descriptor.adopt(3)
uffd.setNonBlocking(socket, false)
const { descriptors } = uffd.receiveDescriptors(socket, new Uint8Array(1), 1)
const [descriptor] = descriptors
const { EVENT_WORDS, pageSize } = uffd
const page = new Uint8Array(pageSize)
const ring = new Float64Array(64 * EVENT_WORDS)
const faults = new uffd.FaultPoller(descriptor, ring)
faults.start((count) => {
  for (let i = 0; i < count * EVENT_WORDS; i += EVENT_WORDS) {
    const result = uffd.copy(descriptor, ring[i + 2], page, 0, pageSize, 0)
    if (result < 0 && result !== -17) throw new Error(uffd.errnoName(-result))
  }
})
const end = new uffd.Poller(socket)
end.watch(uffd.constants.READABLE, () => {
  end.close()
  faults.close()
})
uffd.write(socket, new Uint8Array(1), 0, 1)
