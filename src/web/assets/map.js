/** The map of the memory: decodes the counts of its cells, draws them, and lets those flash that the guest asks for. */
import { bytes, count } from "./format.js"

/** The order of the counts of a cell; the rest of its pages is missing. */
const counted = ["requested", "onDemand", "background", "removed"]

/** How long a cell glows in which the guest has asked for a page; milliseconds. */
const GLOW = 700

export const decode = (cells) => {
  const raw = Uint8Array.from(atob(cells.counts), (c) => c.charCodeAt(0))
  const Numbers = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array }[cells.bits]
  const counts = new Numbers(raw.buffer)
  return { ...cells, counts, length: counts.length / counted.length }
}

export const totals = (map) => {
  const sum = { missing: map.total, requested: 0, onDemand: 0, background: 0, removed: 0 }
  for (let i = 0; i < map.counts.length; i++) {
    sum[counted[i % counted.length]] += map.counts[i]
    sum.missing -= map.counts[i]
  }
  return sum
}

/** Cells in which the guest asked for pages since `before`. */
export const asked = (before, map) => {
  const found = []
  if (before === undefined || before.length !== map.length) return found
  for (let cell = 0; cell < map.length; cell++) {
    const at = cell * counted.length
    if (map.counts[at] + map.counts[at + 1] > before.counts[at] + before.counts[at + 1]) found.push(cell)
  }
  return found
}

const colors = (element) => {
  const style = getComputedStyle(element)
  const of = (name) => style.getPropertyValue(`--${name}`).trim()
  return {
    missing: of("missing"),
    removed: of("removed"),
    background: of("background"),
    onDemand: of("demand"),
    requested: of("requested"),
    flash: of("flash")
  }
}

export const legend = (map, source) => {
  const sum = totals(map)
  const palette = {
    missing: "missing",
    requested: "requested",
    onDemand: "demand",
    background: "background",
    removed: "removed"
  }
  const words = source
    ? { missing: "not sent yet", background: "sent" }
    : {
      missing: "missing",
      requested: "requested",
      onDemand: "received on demand",
      background: "received in background",
      removed: "removed"
    }
  return Object.entries(words).map(([key, label]) =>
    `<li><i style="background:var(--${palette[key]})"></i>${label} <b>${count(sum[key])}</b></li>`
  ).join("")
}

export const describe = (map, pageSize) =>
  `${count(map.total)} pages in ${count(map.length)} cells, ${
    map.pagesPerCell === 1 ? "one page" : `${map.pagesPerCell} pages (${bytes(map.pagesPerCell * pageSize)})`
  } each, in the order of their addresses`

export class MemoryMap {
  #canvas
  #map
  #glow = new Map()
  #frame = 0
  #still = matchMedia("(prefers-reduced-motion: reduce)")

  constructor(canvas) {
    this.#canvas = canvas
    new ResizeObserver(() => this.#draw()).observe(canvas)
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw())
  }

  show(map) {
    const now = performance.now()
    for (const cell of asked(this.#map, map)) this.#glow.set(cell, now)
    this.#map = map
    this.#draw()
  }

  #draw() {
    cancelAnimationFrame(this.#frame)
    const map = this.#map
    const canvas = this.#canvas
    if (map === undefined || canvas.clientWidth === 0) return
    const scale = devicePixelRatio || 1
    const columns = Math.min(map.length, canvas.clientWidth < 600 ? 64 : 128)
    const size = canvas.clientWidth / columns
    const rows = Math.ceil(map.length / columns)
    const height = Math.ceil(rows * Math.min(size, 14))
    canvas.style.height = `${height}px`
    canvas.width = Math.round(canvas.clientWidth * scale)
    canvas.height = Math.round(height * scale)
    const context = canvas.getContext("2d")
    context.scale(scale, scale)
    const palette = colors(canvas)
    const gap = size > 5 ? 1 : 0
    const tall = Math.min(size, 14)
    const now = performance.now()
    for (let cell = 0; cell < map.length; cell++) {
      const x = (cell % columns) * size
      const y = Math.floor(cell / columns) * tall
      const pages = Math.min(map.pagesPerCell, map.total - cell * map.pagesPerCell)
      context.fillStyle = palette.missing
      context.fillRect(x, y, size - gap, tall - gap)
      // A cell of several pages is filled from below, by its parts; what the guest asked for shows, however little.
      let bottom = y + tall - gap
      for (const [offset, name] of [[2, "background"], [3, "removed"], [1, "onDemand"], [0, "requested"]]) {
        const here = map.counts[cell * counted.length + offset]
        if (here === 0) continue
        const share = Math.max(here / pages, offset === 2 ? 0 : 0.18) * (tall - gap)
        context.fillStyle = palette[name]
        context.fillRect(x, Math.max(y, bottom - share), size - gap, Math.min(share, bottom - y))
        bottom = Math.max(y, bottom - share)
      }
      const since = this.#glow.get(cell)
      if (since === undefined) continue
      const left = 1 - (now - since) / GLOW
      if (left <= 0) this.#glow.delete(cell)
      else {
        context.globalAlpha = this.#still.matches ? 0.6 : left
        context.fillStyle = palette.flash
        context.fillRect(x - 1, y - 1, size - gap + 2, tall - gap + 2)
        context.globalAlpha = 1
      }
    }
    if (this.#glow.size > 0) this.#frame = requestAnimationFrame(() => this.#draw())
  }
}
