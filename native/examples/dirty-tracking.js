// Incremental snapshots of memory that is in use: the first one has every page, each later one only those that were
// written since. No fault is served and the writer is never stopped: the kernel takes the notes.
//
//     node examples/dirty-tracking.js
"use strict"

const { DirtyTracker, pageSize, Region } = require("userfaultfd-napi")

const PAGES = 64
const memory = Region.anonymous(PAGES * pageSize)
const write = (page, byte) => memory.write(page * pageSize, new Uint8Array(pageSize).fill(byte), 0, pageSize)

/** Copies of pages by number. */
const copyOf = (runs) => {
  const pages = new Map()
  for (let i = 0; i < runs.length; i += 2) {
    for (let at = runs[i]; at < runs[i] + runs[i + 1]; at += pageSize) {
      const bytes = new Uint8Array(pageSize)
      memory.read(at, bytes, 0, pageSize)
      pages.set(at / pageSize, bytes)
    }
  }
  return pages
}

const snapshots = []
const take = (runs) => {
  const pages = copyOf(runs)
  const which = pages.size > 0 && pages.size < PAGES ? ` (at ${[...pages.keys()].join(", ")})` : ""
  console.log(`snapshot ${snapshots.length}: ${pages.size} page${pages.size === 1 ? "" : "s"}${which}`)
  snapshots.push(pages)
}

// From here on every write is noted, so a page that changes while it is copied is in the next snapshot too.
const tracker = new DirtyTracker(memory)
take([0, PAGES * pageSize])

write(5, 1)
write(6, 2)
write(40, 3)
take(tracker.getAndReprotect())

write(40, 4)
take(tracker.getAndReprotect())

take(tracker.getAndReprotect())
tracker.close()

// Later snapshots win.
const restored = new Map(snapshots.flatMap((pages) => [...pages]))
let equal = 0
for (let page = 0; page < PAGES; page++) {
  const now = new Uint8Array(pageSize)
  memory.read(page * pageSize, now, 0, pageSize)
  if (Buffer.compare(now, restored.get(page)) === 0) equal++
}
console.log(`restored: ${equal} of ${PAGES} pages are equal`)
memory.close()
