/**
 * Draws the diagrams of the documentation: docs/images/conversation.svg, who says what to whom in a migration, and
 * docs/images/states.svg, the states that `status` tells. `--check` only says whether the files are current; a test of the
 * documentation does that, and looks at them in a browser.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const images = fileURLToPath(new URL("../docs/images/", import.meta.url))

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

const text = (x, y, words, { anchor = "middle", kind = "" } = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}"${kind === "" ? "" : ` class="${kind}"`}>${escape(words)}</text>`

const line = (points, kind = "arrow") =>
  `<polyline points="${points.map((p) => p.join(",")).join(" ")}" class="${kind}"/>`

const box = (x, y, width, height, words) =>
  `<rect x="${x - width / 2}" y="${y - height / 2}" width="${width}" height="${height}" rx="7" class="box"/>` +
  text(x, y + 5, words, { kind: "strong" })

/** `about` is what a screen reader says, and a browser when the pointer rests on it. */
const svg = (width, height, title, about, parts) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title about">
<title id="title">${escape(title)}</title>
<desc id="about">${escape(about)}</desc>
<style>
  svg { background: #ffffff; font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  text { fill: #3d4957; stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
  .strong { fill: #17202b; stroke: none; font-weight: 600; }
  .box { fill: #eef2f7; stroke: #9aa4b2; }
  .note { fill: #fff3bf; stroke: #e0c65a; }
  .noted { fill: #4d3d00; stroke: none; }
  .field { fill: none; stroke: #c5ccd6; stroke-dasharray: 6 4; }
  .life { stroke: #c5ccd6; stroke-dasharray: 4 4; fill: none; }
  .arrow { stroke: #2f6fdb; stroke-width: 1.6; fill: none; marker-end: url(#head); }
  .latch { stroke: #c92a2a; stroke-width: 3; fill: none; }
  .head { fill: #2f6fdb; }
  @media (prefers-color-scheme: dark) {
    svg { background: #10151c; }
    text { fill: #b7c3d1; stroke: #10151c; }
    .strong { fill: #e8edf3; }
    .box { fill: #1f2935; stroke: #566273; }
    .note { fill: #3a3213; stroke: #6d5e1f; }
    .noted { fill: #ffe9a0; }
    .field, .life { stroke: #3b4757; }
    .arrow { stroke: #5b9bff; }
    .latch { stroke: #ff8787; }
    .head { fill: #5b9bff; }
  }
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0,1L10,5L0,9z" class="head"/></marker></defs>
${parts.join("\n")}
</svg>
`

// -------------------------------------------------------------------------------------------------- the conversation

const participants = { source: 110, destination: 430, daemon: 750 }

const conversation = [
  ["note", ["destination", "daemon"], "guest module loaded, daemon rehearsed"],
  ["self", "destination", "listening"],
  ["message", "source", "destination", "block list"],
  ["self", "destination", "drops and registers the memory"],
  ["note", ["source"], "guest pauses"],
  ["message", "source", "destination", "device state"],
  ["latch", "source", "latch: the guest never runs here again"],
  ["message", "source", "destination", "00, the switchover"],
  ["message", "destination", "daemon", "uffd, link, counters, page states"],
  ["message", "daemon", "destination", "R"],
  ["message", "destination", "daemon", "r"],
  ["self", "destination", "guest runs"],
  ["message", "daemon", "source", "INIT, page requests"],
  ["message", "source", "daemon", "pages asked for, pages in the background, EOS"],
  ["message", "daemon", "source", "EOC"],
  ["message", "daemon", "destination", "Q"],
  ["message", "destination", "daemon", "q"]
]

const ROW = 36
const FIRST_ROW = 74

const drawn = {
  note: (y, over, words) => {
    const [from, to] = [participants[over[0]] - 104, participants[over.at(-1)] + 104]
    return `<rect x="${from}" y="${y - 15}" width="${to - from}" height="26" rx="4" class="note"/>` +
      text((from + to) / 2, y + 3, words, { kind: "noted" })
  },
  self: (y, who, words) => {
    const x = participants[who]
    return line([[x, y - 9], [x + 26, y - 9], [x + 26, y + 7], [x + 4, y + 7]]) +
      text(x + 34, y + 4, words, { anchor: "start" })
  },
  message: (y, from, to, words) => {
    const [a, b] = [participants[from], participants[to]]
    const step = a < b ? 4 : -4
    return line([[a + step, y + 6], [b - step, y + 6]]) + text((a + b) / 2, y - 1, words)
  },
  latch: (y, who, words) => {
    const x = participants[who]
    return line([[x - 34, y], [x + 34, y]], "latch") + text(x + 42, y + 4, words, { anchor: "start" })
  }
}

const drawConversation = () => {
  const height = FIRST_ROW + conversation.length * ROW
  const names = { source: "source process", destination: "destination process", daemon: "umem daemon" }
  const lives = Object.values(participants).map((x) => line([[x, 46], [x, height - 12]], "life"))
  const heads = Object.entries(names).map(([name, words]) => box(participants[name], 30, 190, 32, words))
  const said = conversation.map(([kind, ...rest], i) => drawn[kind](FIRST_ROW + i * ROW + 6, ...rest))
  return svg(
    860,
    height,
    "A migration as a conversation",
    `Between source process, destination process and umem daemon, in this order: ${
      conversation.map(([, , ...rest]) => rest.at(-1)).join("; ")
    }.`,
    [...lives, ...heads, ...said]
  )
}

// ------------------------------------------------------------------------------------------------------- the states

const WIDE = 104
const HIGH = 36

/** Where each state stands; the arrows as points, with what leads there and where that is written. */
const fields = [
  {
    name: "at the source",
    top: 12,
    states: {
      running: [90, 86],
      migrating: [340, 86],
      postcopy: [570, 86],
      completed: [810, 86],
      paused: [90, 186],
      failed: [810, 186]
    },
    arrows: [
      ["migrate", [215, 69], [[142, 76], [288, 76]]],
      ["any failure, cancel", [215, 112], [[288, 96], [142, 96]]],
      ["pause", [48, 140], [[76, 104], [76, 168]]],
      ["resume", [134, 140], [[104, 168], [104, 104]]],
      ["latch", [455, 79], [[392, 86], [518, 86]]],
      ["EOC", [690, 79], [[622, 86], [758, 86]]],
      ["link or peer is lost", [672, 179], [[570, 104], [570, 186], [758, 186]]]
    ]
  },
  {
    name: "at the destination",
    top: 240,
    states: {
      listening: [90, 314],
      incoming: [340, 314],
      running: [570, 314],
      completed: [810, 314],
      stalled: [570, 414],
      failed: [810, 414]
    },
    arrows: [
      ["first byte", [215, 307], [[142, 314], [288, 314]]],
      ["00", [455, 307], [[392, 314], [518, 314]]],
      ["what arrived is no guest", [425, 399], [[340, 332], [340, 452], [810, 452], [810, 432]]],
      ["every page is here", [690, 299], [[622, 306], [758, 306]]],
      ["silence", [528, 368], [[556, 332], [556, 396]]],
      ["bytes", [606, 368], [[584, 396], [584, 332]]],
      ["link or daemon is lost", [736, 368], [[622, 322], [652, 322], [652, 406], [758, 406]]],
      ["", [0, 0], [[622, 422], [758, 422]]]
    ]
  }
]

const drawStates = () =>
  svg(
    900,
    482,
    "The states of a migration",
    fields.map(({ arrows, name, states }) =>
      `${name}: ${Object.keys(states).join(", ")}; from one to the next by ${
        arrows.flatMap(([words]) => words === "" ? [] : [words]).join(", ")
      }.`
    ).join(" "),
    fields.flatMap(({ arrows, name, states, top }) => [
      `<rect x="12" y="${top}" width="876" height="${name === "at the source" ? 216 : 230}" rx="10" class="field"/>`,
      text(28, top + 24, name, { anchor: "start" }),
      ...arrows.flatMap(([words, [x, y], points]) => [line(points), ...(words === "" ? [] : [text(x, y, words)])]),
      ...Object.entries(states).map(([state, [x, y]]) => box(x, y, WIDE, HIGH, state))
    ])
  )

const drawings = { "conversation.svg": drawConversation(), "states.svg": drawStates() }

for (const [name, drawing] of Object.entries(drawings)) {
  if (!process.argv.includes("--check")) writeFileSync(images + name, drawing)
  else if (readFileSync(images + name, "utf8") !== drawing) {
    console.error(`docs/images/${name} is not what scripts/diagrams.mjs draws: npm run docs:diagrams`)
    process.exitCode = 1
  }
}
