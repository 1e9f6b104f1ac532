// The same handler in Node: a callback of uv_poll for each burst, one call for its pages.
// With the argument "linger" a next fault is waited for, up to 50 µs, before the loop goes on, as a pager under load does;
// with "serve" the poller answers by itself, from a region.
"use strict"

const uffd = require("userfaultfd-napi")

const socket = uffd.Descriptor.adopt(3)
uffd.setNonBlocking(socket, false)
const range = new Uint8Array(16)
const { descriptors } = uffd.receiveDescriptors(socket, range, 1)
const [descriptor] = descriptors
const { constants, EVENT_WORDS, pageSize, VECTOR_WORDS } = uffd
const page = new Uint8Array(pageSize)
const ring = new Float64Array(64 * EVENT_WORDS)
const faults = new uffd.FaultPoller(descriptor, ring)
const vector = new Float64Array(64 * VECTOR_WORDS)
const answer = (count) => {
  if (count === 1) {
    const result = uffd.copy(descriptor, ring[2], page, 0, pageSize, 0)
    if (result < 0 && result !== -17) throw new Error(uffd.errnoName(-result))
    return
  }
  for (let i = 0, event = 2, entry = 0; i < count; i++, event += EVENT_WORDS, entry += VECTOR_WORDS) {
    vector[entry] = ring[event]
    vector[entry + 2] = pageSize
    vector[entry + 3] = constants.INSTALL_COPY
    vector[entry + 4] = 0
  }
  if (uffd.installPages(descriptor, vector, 0, count, page) !== count) throw new Error("a page was refused")
}

const options = process.argv.slice(2)
const linger = options.includes("linger") ? 50_000 : 0
if (options.includes("serve")) {
  const [start, length] = new BigUint64Array(range.buffer)
  const source = uffd.Region.anonymous(Number(length))
  new Uint8Array(source.buffer()).fill(1)
  faults.serve(Number(start), Number(length), source, 0)
  faults.start(() => {
    throw new Error("a fault was left over")
  }, linger)
} else faults.start(answer, linger)
const end = new uffd.Poller(socket)
end.watch(uffd.constants.READABLE, () => {
  end.close()
  faults.close()
})
uffd.write(socket, new Uint8Array(1), 0, 1)
