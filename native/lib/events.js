// Events as objects, for who prefers reading them to counting words. A fork's descriptor gets its owner here, so that
// it is served or closed and never forgotten.
"use strict"

const { constants, Descriptor, EVENT_WORDS } = require("./addon.js")
const { integer, rangeError, typeError } = require("./argument.js")

const has = (flags, bit) => Math.floor(flags / bit) % 2 === 1

const decode = (event, a, b, c) => {
  switch (event) {
    case constants.EVENT_PAGEFAULT:
      return {
        type: "pagefault",
        address: b,
        write: has(a, constants.PAGEFAULT_FLAG_WRITE),
        wp: has(a, constants.PAGEFAULT_FLAG_WP),
        minor: has(a, constants.PAGEFAULT_FLAG_MINOR),
        threadId: c
      }
    case constants.EVENT_FORK:
      return { type: "fork", descriptor: Descriptor.adopt(a) }
    case constants.EVENT_REMAP:
      return { type: "remap", from: a, to: b, length: c }
    case constants.EVENT_REMOVE:
      return { type: "remove", start: a, end: b }
    case constants.EVENT_UNMAP:
      return { type: "unmap", start: a, end: b }
    default:
      return { type: "unknown", event }
  }
}

exports.decodeEvents = (ring, count) => {
  if (!(ring instanceof Float64Array)) throw typeError("ring is not a Float64Array")
  if (integer(count, "count") > ring.length / EVENT_WORDS) throw rangeError(`ring holds less than ${count} events`)
  const events = []
  for (let i = 0; i < count * EVENT_WORDS; i += EVENT_WORDS) {
    events.push(decode(ring[i], ring[i + 1], ring[i + 2], ring[i + 3]))
  }
  return events
}
