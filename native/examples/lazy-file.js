// A file as memory, of which a page is read when somebody looks at it: what a lazy snapshot loader does.
//
//     node examples/lazy-file.js FILE
//
// The main thread serves: it reads the page of the file that a fault asks for and puts it in place. The worker thread
// only sees memory. It must be another thread than the one that serves, which would otherwise wait for itself.
"use strict"

const fs = require("node:fs")
const { once } = require("node:events")
const { isMainThread, parentPort, Worker, workerData } = require("node:worker_threads")
const uffd = require("userfaultfd-napi")

const { constants, pageSize } = uffd

/** The reader: each message is a question about the memory. */
const reader = () => {
  const memory = uffd.Region.adopt(workerData.token)
  const size = workerData.size
  const byte = new Uint8Array(1)
  const questions = {
    lines() {
      const chunk = new Uint8Array(pageSize)
      let lines = 0
      for (let at = 0; at < size; at += pageSize) {
        const length = Math.min(pageSize, size - at)
        memory.read(at, chunk, 0, length)
        for (let i = 0; i < length; i++) if (chunk[i] === 10) lines++
      }
      return lines
    },
    last() {
      memory.read(size - 1, byte, 0, 1)
      return byte[0]
    }
  }
  parentPort.on("message", (question) => {
    if (question === "end") parentPort.close()
    else parentPort.postMessage(questions[question]())
  })
}

/** Memory that shows a file, and how many of its pages were read so far. */
const open = (path) => {
  const file = fs.openSync(path)
  const size = fs.fstatSync(file).size
  const length = uffd.alignUp(size)
  const { descriptor } = uffd.open({ userModeOnly: true })
  const memory = uffd.Region.anonymous(length)
  uffd.register(descriptor, memory.address, length, constants.MODE_MISSING)

  let pagesRead = 0
  const ring = new Float64Array(64 * uffd.EVENT_WORDS)
  const page = new Uint8Array(pageSize)
  const faults = new uffd.FaultPoller(descriptor, ring)
  faults.start((count) => {
    if (count < 0) throw new Error(`cannot read faults: ${uffd.errnoName(-count)}`)
    for (const { address } of uffd.decodeEvents(ring, count)) {
      const start = uffd.alignDown(address)
      // The last page ends in zeros, like a mapping of the file would.
      page.fill(0)
      fs.readSync(file, page, 0, pageSize, start - memory.address)
      const result = uffd.copy(descriptor, start, page, 0, pageSize, 0)
      // Two threads may want the same page; whoever came second finds it there.
      if (result === -17) uffd.wake(descriptor, start, pageSize)
      else if (result !== pageSize) throw new Error(`cannot install a page: ${uffd.errnoName(-result)}`)
      else pagesRead++
    }
  })
  return {
    size,
    memory,
    pages: length / pageSize,
    pagesRead: () => pagesRead,
    close: () => {
      faults.close()
      descriptor.close()
      memory.close()
      fs.closeSync(file)
    }
  }
}

const ask = async (path, question) => {
  const lazy = open(path)
  const worker = new Worker(__filename, { workerData: { token: lazy.memory.share(), size: lazy.size } })
  worker.postMessage(question)
  const [answer] = await once(worker, "message")
  worker.postMessage("end")
  await once(worker, "exit")
  lazy.close()
  return { answer, read: `${lazy.pagesRead()} of ${lazy.pages} pages read` }
}

const main = async () => {
  const path = process.argv[2] ?? __filename
  const lines = await ask(path, "lines")
  console.log(`${lines.answer} lines, ${lines.read}`)
  const last = await ask(path, "last")
  console.log(`its last byte is ${last.answer}, ${last.read}`)
}

if (isMainThread) main()
else reader()
