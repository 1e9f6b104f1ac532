// Two processes: a guest whose memory is empty, and a pager that fills it. The guest registers its memory and sends the
// userfaultfd over a socket (SCM_RIGHTS); from then on the pager answers its page faults from outside, as the handler
// of a virtual machine does.
//
//     node examples/two-processes.js
//
// Run by itself it is the pager, which starts the guest.
"use strict"

const { spawn } = require("node:child_process")
const { once } = require("node:events")
const uffd = require("userfaultfd-napi")

const { constants, pageSize } = uffd
const PAGES = 4
/** Where the guest finds its end of the socket. */
const GUEST_SOCKET = 3

/** Resolves when there is something to be read. */
const readable = (descriptor) =>
  new Promise((resolve) => {
    const poller = new uffd.Poller(descriptor)
    poller.watch(constants.READABLE, () => {
      poller.close()
      resolve()
    })
  })

const guest = () => {
  const socket = uffd.Descriptor.adopt(GUEST_SOCKET)
  const memory = uffd.Region.anonymous(PAGES * pageSize)
  const { descriptor } = uffd.open({ userModeOnly: true })
  uffd.register(descriptor, memory.address, memory.length, constants.MODE_MISSING)
  const layout = JSON.stringify({ address: memory.address, length: memory.length })
  uffd.sendDescriptors(socket, Buffer.from(layout), [descriptor])
  // The guest keeps its descriptor open: with the last one closed, what is missing would read as zeros in silence.
  const seen = Array.from({ length: PAGES }, (_, page) => memory.fillByte(page * pageSize, pageSize))
  console.log(`the guest sees ${seen.join(", ")}`)
  descriptor.close()
}

const pager = async () => {
  const [ours, theirs] = uffd.socketpair(constants.SOCK_SEQPACKET)
  const child = spawn(process.execPath, [__filename, "guest"], {
    stdio: ["ignore", "inherit", "inherit", theirs.fd]
  })
  const exited = once(child, "exit")
  theirs.close()

  await readable(ours)
  // Whoever is at the other end: the kernel says, not the peer. Of a socket pair that is who made it.
  if (uffd.peerCredentials(ours).uid !== process.getuid()) throw new Error("the guest belongs to another user")
  const message = new Uint8Array(4096)
  const { bytes, descriptors, truncated } = uffd.receiveDescriptors(ours, message, 1)
  if (bytes <= 0 || truncated || descriptors.length !== 1) throw new Error("the guest sent no userfaultfd")
  const { address } = JSON.parse(Buffer.from(message.subarray(0, bytes)).toString())
  const [descriptor] = descriptors

  let served = 0
  const ring = new Float64Array(16 * uffd.EVENT_WORDS)
  const page = new Uint8Array(pageSize)
  const faults = new uffd.FaultPoller(descriptor, ring)
  faults.start((count) => {
    for (const event of uffd.decodeEvents(ring, count)) {
      const index = (event.address - address) / pageSize
      // Zeros need no bytes.
      if (index === PAGES - 1) uffd.zeropage(descriptor, event.address, pageSize, 0)
      else uffd.copy(descriptor, event.address, page.fill(index + 1), 0, pageSize, 0)
      served++
    }
  })

  await exited
  faults.close()
  descriptor.close()
  ours.close()
  console.log(`the pager served ${served} faults in the memory of the guest`)
}

if (process.argv[2] === "guest") guest()
else pager()
