// Arithmetic of pages. Addresses are beyond 32 bits, so that the bitwise operators, which would be wrong in silence,
// are not used anywhere here.
"use strict"

const { pageSize: hostPage } = require("./addon.js")
const { integer, rangeError, typeError } = require("./argument.js")

const pageOf = (value) => {
  const page = value === undefined ? hostPage : integer(value, "pageSize", 1)
  if (!Number.isInteger(Math.log2(page))) throw rangeError(`pageSize is not a power of two: ${page}`)
  return page
}

const down = (address, page) => address - address % page

const up = (address, page) => {
  const rest = address % page
  return rest === 0 ? address : address - rest + page
}

const safe = (value) => {
  if (!Number.isSafeInteger(value)) throw rangeError(`the end of the range is not a safe integer: ${value}`)
  return value
}

exports.alignDown = (address, pageSize) => down(integer(address, "address"), pageOf(pageSize))

exports.alignUp = (address, pageSize) => safe(up(integer(address, "address"), pageOf(pageSize)))

exports.pagesCovering = (address, length, pageSize) => {
  const page = pageOf(pageSize)
  const start = down(integer(address, "address"), page)
  if (integer(length, "length") === 0) return { address: start, length: 0 }
  return { address: start, length: safe(up(safe(address + length), page)) - start }
}

exports.pagesWithin = (address, length, pageSize) => {
  const page = pageOf(pageSize)
  const start = safe(up(integer(address, "address"), page))
  const end = down(safe(address + integer(length, "length")), page)
  return { address: start, length: Math.max(0, end - start) }
}

exports.runsOf = (pages) => {
  const isView = ArrayBuffer.isView(pages) && !(pages instanceof DataView)
  if (!Array.isArray(pages) && !isView) throw typeError("pages is not an array")
  // Iterating over what was transferred away would throw an error without a code.
  if (isView && pages.length === 0) return new Float64Array(0)
  const sorted = Float64Array.from(pages, (page) => integer(page, "a page")).sort()
  const runs = []
  for (let i = 0; i < sorted.length; i++) {
    const page = sorted[i]
    const last = runs.length - 1
    if (last > 0 && page < runs[last - 1] + runs[last]) continue
    if (last > 0 && page === runs[last - 1] + runs[last]) runs[last]++
    else runs.push(page, 1)
  }
  return Float64Array.from(runs)
}
