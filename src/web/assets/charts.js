/** The drawings that are not the map: phases of both sides, memory over time, histogram of latencies. Plain SVG. */
import { bytes, count, escape, micros, millis } from "./format.js"

/** What lasts from a mark to the next one. */
const words = {
  source: {
    connecting: "rehearsal, connecting",
    announced: "guest runs, blocks judged",
    paused: "paused: device state",
    switchover: "pages follow",
    completed: "done",
    failed: "failed",
    cancelled: "cancelled"
  },
  destination: {
    listening: "waiting",
    arriving: "arriving",
    handover: "daemon takes over",
    running: "guest runs, first steps",
    answered: "guest runs",
    completed: "done",
    failed: "failed"
  }
}

const tints = {
  connecting: "var(--missing)",
  listening: "var(--missing)",
  announced: "var(--good)",
  paused: "var(--bad)",
  arriving: "var(--missing)",
  handover: "var(--bad)",
  switchover: "var(--background)",
  running: "var(--good)",
  answered: "var(--good)",
  completed: "none",
  failed: "none",
  cancelled: "none"
}

const over = ["completed", "failed", "cancelled"]

/** Spans of one side: `{phase, label, from, to, over}`. */
export const spans = (side, observation) =>
  (observation?.timeline ?? []).map(({ at, phase }, i, marks) => ({
    phase,
    label: words[side][phase] ?? phase,
    from: at,
    to: marks[i + 1]?.at ?? (over.includes(phase) ? at : Math.max(at, observation.at)),
    over: over.includes(phase)
  }))

/** Where a side's migration ended before it was complete. */
const broken = (side, { label, phase }, x, top) =>
  phase === "completed"
    ? ""
    : `<g><title>${side}, ${label}</title><path d="M${x - 5},${
      top + 4
    }l10,14m0,-14l-10,14" stroke="var(--bad)" stroke-width="3"/></g>`

const rows = (sides, from, to, y, magnified) => {
  const width = 1000
  const x = (at) => 100 + (Math.min(Math.max(at, from), to) - from) / Math.max(1e-6, to - from) * (width - 110)
  let svg = ""
  Object.entries(sides).forEach(([side, list], row) => {
    const top = y + row * 30
    svg += `<text class="strong" x="0" y="${top + 16}">${side}</text>`
    for (const span of list) {
      if (span.to < from || span.from > to) continue
      if (span.over) {
        svg += broken(side, span, x(span.from), top)
        continue
      }
      const left = x(span.from)
      const wide = Math.max(2, x(span.to) - left)
      const title = `${span.label}: ${millis(span.to - span.from)}`
      svg += `<g><title>${escape(`${side}, ${title}`)}</title>` +
        `<rect x="${left}" y="${top}" width="${wide}" height="22" rx="3" fill="${
          tints[span.phase]
        }" fill-opacity=".28" stroke="${tints[span.phase]}"/>`
      if (wide > 14 + 7.6 * (magnified ? title : span.label).length) {
        svg += `<text class="strong" x="${left + 7}" y="${top + 15}">${escape(magnified ? title : span.label)}</text>`
      }
      svg += "</g>"
    }
  })
  const bottom = y + Object.keys(sides).length * 30
  return svg + `<text x="100" y="${bottom + 12}">0</text>` +
    `<text x="${width - 10}" y="${bottom + 12}" text-anchor="end">${millis(to - from)}</text>`
}

/** All phases of both sides, and the switchover once more, magnified. */
export const timeline = (pictures) => {
  const sides = {}
  for (const side of ["source", "destination"]) {
    const list = spans(side, pictures[side]).filter(({ phase }) => phase !== "listening")
    if (list.length > 0) sides[side] = list
  }
  const all = Object.values(sides).flat()
  if (all.length === 0) {
    return `<svg viewBox="0 0 1000 26" role="img" aria-label="no migration yet"><text x="0" y="18">No migration yet.</text></svg>`
  }
  const from = Math.min(...all.map((span) => span.from))
  const to = Math.max(...all.map((span) => span.to))
  const count = Object.keys(sides).length
  const height = count * 30 + 22
  const paused = all.find(({ phase }) => phase === "paused") ?? all.find(({ phase }) => phase === "arriving")
  const resumed = all.find(({ phase }) => phase === "running") ?? all.find(({ phase }) => phase === "switchover")
  let svg = rows(sides, from, to, 0, false)
  let total = height
  if (paused !== undefined && resumed !== undefined && resumed.from > paused.from) {
    const margin = Math.max(1, (resumed.from - paused.from) * 0.3)
    const [left, right] = [Math.max(from, paused.from - margin), Math.min(to, resumed.from + margin)]
    if ((right - left) * 3 < to - from) {
      svg += `<text x="0" y="${height + 26}">the switchover, magnified</text>` +
        rows(sides, left, right, height + 36, true)
      total += height + 36
    }
  }
  return `<svg viewBox="0 0 1000 ${total}" role="img" aria-label="Phases of the migration; the same as a table below">${svg}</svg>`
}

export const timelineTable = (pictures) => {
  const body = ["source", "destination"].flatMap((side) =>
    spans(side, pictures[side]).map(({ from, label, over, to }) =>
      `<tr><td>${side}</td><td>${escape(label)}</td><td class="n">${over ? "" : millis(to - from)}</td></tr>`
    )
  )
  return `<table><thead><tr><th>side</th><th>phase</th><th class="n">lasted</th></tr></thead><tbody>${
    body.join("")
  }</tbody></table>`
}

/** Pages that are here, over time: on demand, and all. `samples`: `{at, onDemand, background, total}`. */
export const followed = (samples, pageSize) => {
  const begun = samples.findIndex(({ background, onDemand }) => background + onDemand > 0)
  // What comes after the last page says nothing more.
  const full = samples.findIndex(({ background, onDemand, removed, total }) =>
    total > 0 && background + onDemand + removed >= total
  )
  const shown = begun < 0 ? [] : samples.slice(Math.max(0, begun - 1), full < 0 ? undefined : full + 1)
  if (shown.length < 2) {
    return `<svg viewBox="0 0 500 200" role="img" aria-label="nothing yet"><text x="0" y="100">Nothing yet.</text></svg>`
  }
  const [from, to] = [shown[0].at, shown.at(-1).at]
  const total = Math.max(1, shown.at(-1).total)
  const x = (at) => 62 + (at - from) / Math.max(1e-6, to - from) * 428
  const y = (pages) => 166 - pages / total * 150
  const area = (value) =>
    `M${x(from)},${y(0)}` + shown.map((sample) =>
      `L${x(sample.at).toFixed(1)},${y(value(sample)).toFixed(1)}`
    ).join("") +
    `L${x(to)},${y(0)}Z`
  const ticks = [0, 0.5, 1].map((part) =>
    `<line class="axis" x1="62" x2="490" y1="${y(total * part)}" y2="${y(total * part)}"/>` +
    `<text x="54" y="${y(total * part) + 4}" text-anchor="end">${bytes(total * part * pageSize)}</text>`
  ).join("")
  const last = shown.at(-1)
  return `<svg viewBox="0 0 500 200" role="img" aria-label="${
    escape(
      `${bytes((last.onDemand + last.background) * pageSize)} of ${bytes(total * pageSize)} after ${millis(to - from)}`
    )
  }">${ticks}` +
    `<path d="${area((sample) => sample.onDemand + sample.background)}" fill="var(--background)" opacity=".8"/>` +
    `<path d="${area((sample) => sample.onDemand)}" fill="var(--demand)"/>` +
    `<text x="62" y="186">0</text><text x="490" y="186" text-anchor="end">${millis(to - from)}</text>` +
    `<text x="276" y="186" text-anchor="middle">blue: in background, orange: on demand</text></svg>`
}

/** Page requests by latency, one bar an octave. */
export const histogram = (observation) => {
  const buckets = observation?.histogram ?? []
  const first = buckets.findIndex((n) => n > 0)
  if (first < 0) {
    return `<svg viewBox="0 0 500 200" role="img" aria-label="no page requests yet"><text x="0" y="100">No page requests yet.</text></svg>`
  }
  const shown = buckets.slice(first)
  const most = Math.max(...shown)
  const { p50Us, p99Us } = observation.faults
  const step = 440 / shown.length
  const place = (us) => 40 + (Math.log2(Math.max(us, 1)) - first) * step
  let svg = ""
  shown.forEach((n, i) => {
    const height = n === 0 ? 0 : Math.max(2, n / most * 132)
    const [from, to] = [2 ** (first + i), 2 ** (first + i + 1)]
    svg += `<g><title>${micros(from)} to ${micros(to)}: ${count(n)}</title>` +
      `<rect x="${40 + i * step + 1}" y="${166 - height}" width="${
        Math.max(1, step - 2)
      }" height="${height}" rx="2" fill="var(--demand)"/></g>`
    if (shown.length <= 8 || i % 2 === 0) {
      svg += `<text x="${40 + i * step}" y="184" text-anchor="middle">${micros(from)}</text>`
    }
  })
  for (const [name, us] of [["p50", p50Us], ["p99", p99Us]]) {
    if (us === null) continue
    const x = place(us)
    svg += `<line x1="${x}" x2="${x}" y1="22" y2="166" stroke="var(--text)" stroke-dasharray="3 3"/>` +
      `<text class="strong" x="${x}" y="14" text-anchor="middle">${name} ${micros(us)}</text>`
  }
  return `<svg viewBox="0 0 500 200" role="img" aria-label="${
    escape(
      `${count(observation.faults.count)} page requests, half of them answered within ${micros(p50Us)}, 99 % within ${
        micros(p99Us)
      }`
    )
  }"><line class="axis" x1="40" x2="480" y1="166" y2="166"/>${svg}</svg>`
}
