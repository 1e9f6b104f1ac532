// The same handler in Node: a callback of uv_poll for each burst, one call for its pages.
// With the argument "busy" it waits for a next fault before it goes back to the loop, as a pager under load does.
"use strict"

const uffd = require("userfaultfd-napi")

const socket = uffd.Descriptor.adopt(3)
uffd.setNonBlocking(socket, false)
const { descriptors } = uffd.receiveDescriptors(socket, new Uint8Array(1), 1)
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

/** After a fault the next one is near: it is waited for without sleeping, at most so long, and in one turn at most. */
const WAIT_NANOS = 50_000
const TURN_NANOS = 1_000_000
const answerBusily = (count) => {
  answer(count)
  const until = uffd.monotonicNanos() + TURN_NANOS
  while (uffd.monotonicNanos() < until) {
    if (uffd.busyPoll(descriptor, constants.READABLE, null, 0, WAIT_NANOS) !== 1) return
    const more = uffd.readEvents(descriptor, ring)
    if (more > 0) answer(more)
  }
}

faults.start(process.argv[2] === "busy" ? answerBusily : answer)
const end = new uffd.Poller(socket)
end.watch(uffd.constants.READABLE, () => {
  end.close()
  faults.close()
})
uffd.write(socket, new Uint8Array(1), 0, 1)
