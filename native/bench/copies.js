// The same bursts through the package. Arguments and output as of copies.cc.
"use strict"

const uffd = require("userfaultfd-napi")

const { constants, copy, installPages, pageSize, Region, VECTOR_WORDS } = uffd
const HEADER = 9

const [mode, pages, bursts] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const length = pages * pageSize
const region = Region.anonymous(length)
// A property of a native object costs a call each time.
const { address } = region
const { descriptor } = uffd.open({ userModeOnly: true })
uffd.register(descriptor, address, length, constants.MODE_MISSING)
const stride = mode === "contiguous" ? pageSize : pageSize + HEADER
const source = new Uint8Array(pages * stride).fill(1)
const vector = new Float64Array(pages * VECTOR_WORDS)

/** What a pager does with a chunk of its stream: an entry a page, and one call. */
const install = () => {
  for (let i = 0, at = 0; i < pages; i++, at += VECTOR_WORDS) {
    vector[at] = address + i * pageSize
    vector[at + 1] = i * stride
    vector[at + 2] = pageSize
    vector[at + 3] = constants.INSTALL_COPY
    vector[at + 4] = 0
  }
  return installPages(descriptor, vector, 0, pages, source)
}

const single = () => {
  let done = 0
  for (let i = 0; i < pages; i++) {
    if (copy(descriptor, address + i * pageSize, source, i * stride, pageSize, 0) === pageSize) done++
  }
  return done
}

const burst = mode === "single" ? single : install
/** Seconds of this thread's own time; an older Node knows only the process's. */
const now = () => {
  const { system, user } = (process.threadCpuUsage ?? process.cpuUsage)()
  return (system + user) / 1e6
}

const run = (count) => {
  let spent = 0
  for (let i = 0; i < count; i++) {
    region.madvise(0, length, constants.MADV_DONTNEED)
    const before = now()
    if (burst() !== pages) throw new Error("not all pages were installed")
    spent += now() - before
  }
  return pages * count / spent
}

// Compiled by V8 before it is measured, as the C++ was.
run(Math.ceil(bursts / 10))
console.log(run(bursts).toFixed(0))
