/**
 * The page: shows one picture after the other as they come over server-sent events, or the one picture of a report.
 * A picture is `{ended, outcome?, reports, sides: {source?, destination?}}`; sides are observations.
 */
import { followed, histogram, timeline, timelineTable } from "./charts.js"
import { bytes, count, escape, micros, millis, percent, rate } from "./format.js"
import { decode, describe, legend, MemoryMap } from "./map.js"

const $ = (id) => document.getElementById(id)
const data = JSON.parse($("data").textContent)
const map = new MemoryMap($("map"))
const samples = data.samples

/** Sets what has changed only: a screen reader, a selection and the layout are left alone otherwise. */
const put = (id, html) => {
  const element = $(id)
  if (element.dataset.shown === html) return
  element.dataset.shown = html
  element.innerHTML = html
}

const states = {
  running: "guest runs",
  paused: "guest is paused",
  migrating: "guest runs, migration begins",
  postcopy: "guest has left, pages follow",
  listening: "waiting for a guest",
  incoming: "guest arrives",
  stalled: "guest waits: the source is silent",
  completed: "complete",
  failed: "failed"
}

const runsAt = ({ destination, source }) => {
  const there = destination?.status.state
  if (there === "running" || there === "completed" || there === "stalled") return "destination"
  return source !== undefined && ["running", "migrating"].includes(source.status.state) ? "source" : undefined
}

/** What the source alone can tell. */
const ofSource = ({ status: { remaining, state, total }, timeline }) => {
  const left = `${count(remaining)} of ${count(total)} pages`
  switch (state) {
    case "migrating":
      return "The guest runs at the source; a migration begins."
    case "postcopy":
      return `The guest has left the source; ${left} are not sent yet.`
    case "completed":
      return `The guest has left the source, and all of its ${count(total)} pages are sent.`
    case "failed":
      return `The migration has failed; ${left} were not sent.`
  }
  const ended = {
    cancelled: "The migration was cancelled.",
    failed: "The migration has failed.",
    completed: "The guest's migration to here is complete."
  }[timeline.at(-1)?.phase] ?? "There is no migration."
  return `${ended} The guest ${state === "paused" ? "is paused" : "runs"} here.`
}

const sentence = ({ destination, source }) => {
  if (destination === undefined) return ofSource(source)
  const { remaining, state, total } = destination.status
  switch (state) {
    case "completed":
      return `The migration is complete: all ${count(total)} pages are at the destination.`
    case "listening":
      return source === undefined
        ? "The destination waits for a guest."
        : `The destination waits. ${ofSource(source)}`
    case "incoming":
      return "The guest arrives at the destination."
    case "failed":
      return total > 0
        ? `The migration has failed; ${count(remaining)} of ${count(total)} pages are missing at the destination.`
        : "The migration has failed."
  }
  return `The guest ${state === "running" ? "runs" : "waits"} at the destination while its memory follows: ${
    percent(total - remaining, total)
  } of ${count(total)} pages are there.`
}

/** Bytes a second over the last second of samples. */
const throughput = (pageSize) => {
  const last = samples.at(-1)
  if (last === undefined) return 0
  const first = samples.findLast(({ at }) => at <= last.at - 1000) ?? samples[0]
  const pages = last.onDemand + last.background - first.onDemand - first.background
  return last.at > first.at ? pages * pageSize / (last.at - first.at) * 1000 : 0
}

const downtimeOf = ({ outcome, sides }) =>
  outcome?.downtimeMs ?? sides.destination?.downtimeMs ?? sides.source?.downtimeMs ?? null

const tile = (name, value, more = "") =>
  `<div><dt>${name}</dt><dd>${value}${more === "" ? "" : ` <small>${more}</small>`}</dd></div>`

const tiles = (picture) => {
  const { reports, sides: { destination, source } } = picture
  const side = destination ?? source
  const { remaining, total } = side.status
  const faults = destination?.faults
  const done = reports.destination ?? reports.source
  const list = [
    tile("downtime", millis(downtimeOf(picture))),
    tile(destination === undefined ? "sent" : "memory arrived", percent(total - remaining, total)),
    // A report's is all of the memory by the whole time: that says something only of a whole migration.
    done?.state === "completed"
      ? tile("throughput", `${done.throughputMiBps.toFixed(0)} MiB/s`)
      : tile("throughput", `${bytes(throughput(side.pageSize))}/s`)
  ]
  if (faults !== undefined) {
    list.push(
      tile("page requests", count(faults.count), side.inFlight > 0 ? `${side.inFlight} in flight` : ""),
      tile("a page took, p50", micros(faults.p50Us), `p99 ${micros(faults.p99Us)}`),
      tile("guest waited (blocktime)", millis(faults.blockedMs))
    )
  }
  if (source !== undefined && destination === undefined) list.push(tile("limit", rate(source.maxBandwidth)))
  return list.join("")
}

const numbers = ({ outcome, reports, sides }) => {
  const lines = []
  const line = (name, of) => {
    const cells = ["source", "destination"].map((side) => {
      if (sides[side] === undefined) return "–"
      const value = of(sides[side], reports[side])
      return value === undefined || value === null ? "–" : value
    })
    lines.push(`<tr><th scope="row">${name}</th>${cells.map((cell) => `<td class="n">${cell}</td>`).join("")}</tr>`)
  }
  line("state", (o) => escape(o.status.state))
  line("memory", (o) => bytes(o.memoryBytes))
  line("pages", (o) => count(o.pages.total))
  line("on demand", (o) => count(o.pages.onDemand))
  line("in background", (o) => count(o.pages.background))
  line("of them fill (one repeated byte)", (o) => count(o.pages.fill))
  line("removed", (o) => count(o.pages.removed))
  line("bytes on the wire", (o, r) => bytes(r?.bytesOnWire ?? o.bytesSent + o.bytesReceived))
  line("downtime", (o, r) => millis(r?.downtimeMs ?? o.downtimeMs))
  line("total time", (_, r) => r === undefined ? undefined : millis(r.totalMs))
  line("throughput", (_, r) => r?.state === "completed" ? `${r.throughputMiBps.toFixed(0)} MiB/s` : undefined)
  line("page requests", (o) => o.faults && count(o.faults.count))
  line(
    "p50 / p90 / p99 / max",
    (o) => o.faults && [o.faults.p50Us, o.faults.p90Us, o.faults.p99Us, o.faults.maxUs].map(micros).join(" / ")
  )
  line("guest waited", (o) => o.faults && millis(o.faults.blockedMs))
  line("bandwidth limit", (o) => o.status.role === "source" ? rate(o.maxBandwidth) : undefined)
  line("background pages", (o) => o.status.role === "source" ? (o.background ? "on" : "off") : undefined)
  line("RAM blocks", (o) => o.blocks.map(({ idstr, length }) => `${escape(idstr)} (${bytes(length)})`).join(", "))
  line("migration", (o) => `<code>${escape(o.id)}</code>`)
  const more = outcome === undefined ? "" : `<p>${
    [
      outcome.verified ? "Verified: the guest is whole." : "NOT verified: the guest's contents changed.",
      `Last step at the source to first step at the destination: ${millis(outcome.downtimeMs)}.`,
      `First answer at the destination with ${count(outcome.missingAtFirstAnswer)} pages still missing.`
    ].join(" ")
  }</p>`
  return `${more}<table><thead><tr><th></th><th class="n">source</th><th class="n">destination</th></tr></thead><tbody>${
    lines.join("")
  }</tbody></table>`
}

let spoken = 0
let spokenOf = ""
let picture = data.picture

const show = () => {
  const { sides } = picture
  const error = sides.destination?.status.error ?? sides.source?.status.error ?? picture.error
  $("error").hidden = error === undefined
  if (error !== undefined) put("error", escape(error))
  const side = sides.destination ?? sides.source
  if (side === undefined) return
  const place = runsAt(sides)
  for (const name of ["source", "destination"]) {
    const state = sides[name]?.status.state
    const last = { source: "guest has left, all is sent", destination: "guest runs, all is here" }[name]
    put(`state-${name}`, state === undefined ? "on another host" : state === "completed" ? last : states[state])
    $(`host-${name}`).classList.toggle("runs", place === name)
    $(`host-${name}`).classList.toggle("lost", sides[name]?.status.state === "failed")
  }
  const { remaining, total } = side.status
  const began = side.timeline.length > 1
  const done = began && total > 0 ? (total - remaining) / total : 0
  $("wire-fill").style.width = `${done * 100}%`
  put("wire-label", began && total > 0 ? percent(total - remaining, total) : "")
  // A screen reader is told at once what is new, and not ten times a second how far it is.
  const now = performance.now()
  const both = `${sides.source?.status.state}, ${sides.destination?.status.state}`
  if (picture.ended || both !== spokenOf || now - spoken > 2000) {
    spoken = now
    spokenOf = both
    put("summary", escape(sentence(sides)))
  }
  put("tiles", tiles(picture))
  const cells = side.cells ?? sides.source?.cells
  if (cells !== undefined) {
    const decoded = decode(cells)
    const ofSource = side.cells === undefined || sides.destination === undefined
    put("map-side", ofSource ? "source" : "destination")
    put("map-hint", describe(decoded, side.pageSize))
    put("legend", legend(decoded, ofSource))
    $("map").setAttribute("aria-label", $("legend").innerText.replaceAll("\n", ", "))
    map.show(decoded)
  } else put("map-hint", "There is a map as soon as the migration has switched over.")
  put("timeline", timeline(sides))
  put("timeline-table", timelineTable(sides))
  put("throughput", followed(samples, side.pageSize))
  put("latency", histogram(sides.destination))
  put("numbers", numbers(picture))
  control()
}

// ------------------------------------------------------------------------------------------------------- controls

const limits = [["unlimited", null], ...[1, 4, 16, 64, 256].map((mib) => [`${mib} MiB/s`, mib * 2 ** 20])]

const send = async (action) => {
  put("said", "…")
  try {
    const response = await fetch("control", {
      method: "POST",
      headers: { "content-type": "application/json", "x-postcopy-token": data.token },
      body: JSON.stringify(action)
    })
    const answer = await response.json()
    put("said", escape(answer.message))
  } catch {
    put("said", "nobody answers any more")
  }
}

/** Who has just pressed a button keeps the focus there, though it can be pressed no more: a disabled one would lose it. */
const allow = (id, on) => {
  const element = $(id)
  element.setAttribute("aria-disabled", String(!on))
  element.disabled = !on && document.activeElement !== element
}

const isAllowed = (element) => element.getAttribute("aria-disabled") !== "true"

const control = () => {
  const { source } = picture.sides
  if (data.token === undefined || source === undefined) return
  $("controls").hidden = false
  const under = !picture.ended && ["migrating", "postcopy"].includes(source.status.state)
  allow("bandwidth", under)
  allow("background", under)
  allow("cancel", !picture.ended && source.status.state === "migrating")
  if (document.activeElement !== $("bandwidth")) {
    const known = limits.findIndex(([, value]) => value === source.maxBandwidth)
    $("bandwidth").value = known < 0 ? "other" : String(known)
    $("bandwidth").querySelector("[value=other]").textContent = known < 0 ? rate(source.maxBandwidth) : "other"
  }
  $("background").setAttribute("aria-pressed", String(source.background))
  put("background", `Background pages: ${source.background ? "on" : "off"}`)
}

if (data.mode === "live") {
  $("bandwidth").innerHTML = limits.map(([name], i) => `<option value="${i}">${name}</option>`).join("") +
    `<option value="other" hidden>other</option>`
  $("bandwidth").addEventListener("change", ({ target }) => {
    const limit = limits[Number(target.value)]
    if (limit !== undefined && isAllowed(target)) void send({ action: "bandwidth", bytesPerSecond: limit[1] })
  })
  const press = (id, action) =>
    $(id).addEventListener("click", ({ target }) => {
      if (isAllowed(target)) void send(action())
    })
  press("background", () => ({ action: "background", on: !picture.sides.source.background }))
  press("cancel", () => ({ action: "cancel" }))

  const pill = (text, kind) => {
    $("connection").hidden = false
    put("connection", text)
    $("connection").className = `pill ${kind}`
  }
  const events = new EventSource("events")
  events.addEventListener("open", () => pill("live", "live"))
  events.addEventListener("error", () => pill("connection lost; the picture is the last one", "over"))
  events.addEventListener("picture", ({ data: text }) => {
    picture = JSON.parse(text)
    if (picture.sample !== undefined) samples.push(picture.sample)
    show()
    if (!picture.ended) return
    events.close()
    pill("ended; the picture stays", "over")
    document.documentElement.dataset.ended = "true"
  })
}

put("title", escape(data.title))
document.title = `${data.title} – postcopy`
put("footer", data.about.map(([name, value]) => `${escape(name)}: ${escape(value)}`).join(" · "))
show()
