// The package against the least C++ that does the same, in one run, turn by turn: faults answered (1 and 8 threads) and
// pages copied. Absolute times of a shared machine say little; the ratio of neighbours in time says something.
//
//     node bench/bench.js [ROUNDS]          a table; each line of JSON goes to standard error
"use strict"

const { spawn, spawnSync } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const uffd = require("userfaultfd-napi")

const rounds = Number(process.argv[2] ?? 9)
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-bench-"))

const compile = (name) => {
  const file = path.join(directory, name)
  const include = path.join(__dirname, "..", "src")
  const args = ["-std=c++20", "-O2", "-pthread", "-D_GNU_SOURCE", "-I", include, path.join(__dirname, `${name}.cc`)]
  if (spawnSync("c++", [...args, "-o", file], { stdio: "inherit" }).status !== 0) {
    throw new Error(`${name}: no compiler`)
  }
  return file
}

const script = (name) => [process.execPath, path.join(__dirname, `${name}.js`)]

/** One guest served by one handler: what the guest measured. */
const faults = async (guest, handler, threads, pages) => {
  const [one, other] = uffd.socketpair(uffd.constants.SOCK_STREAM)
  for (const end of [one, other]) uffd.setNonBlocking(end, false)
  const [command, ...args] = handler
  const serving = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", other.fd] })
  const touching = spawn(guest, [String(threads), String(pages)], { stdio: ["ignore", "pipe", "inherit", one.fd] })
  one.close()
  other.close()
  const ended = Promise.all([once(serving, "exit"), once(touching, "exit")])
  let text = ""
  for await (const chunk of touching.stdout) text += chunk
  const [[status], [guestStatus]] = await ended
  if (status !== 0 || guestStatus !== 0) throw new Error(`handler ended with ${status}, guest with ${guestStatus}`)
  return JSON.parse(text)
}

const copies = ([command, ...args], mode, pages, bursts) => {
  const { status, stdout } = spawnSync(command, [...args, mode, String(pages), String(bursts)], { encoding: "utf8" })
  if (status !== 0) throw new Error(`${command} ${mode} ended with ${status}`)
  return { perSecond: Number(stdout) }
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]

/** `figure` of both sides: their ratio in each pair, its spread, and that of the best of each, the least disturbed. */
const compare = (name, unit, floor, ours, figure) => {
  const best = (side) => Math[unit === "µs" ? "min" : "max"](...side.map((each) => each[figure]))
  const ratios = ours.map((each, i) => each[figure] / floor[i][figure])
  const line = {
    name,
    unit,
    floor: median(floor.map((each) => each[figure])),
    package: median(ours.map((each) => each[figure])),
    ratio: median(ratios),
    least: Math.min(...ratios),
    most: Math.max(...ratios),
    best: best(ours) / best(floor),
    rounds
  }
  process.stderr.write(`${JSON.stringify(line)}\n`)
  return line
}

const pairs = async (floor, ours) => {
  const result = { floor: [], ours: [] }
  for (let i = 0; i < rounds; i++) {
    // Whoever is first has the colder machine: they take turns at that too.
    const order = i % 2 === 0 ? [["floor", floor], ["ours", ours]] : [["ours", ours], ["floor", floor]]
    for (const [side, run] of order) result[side].push(await run())
  }
  return result
}

const main = async () => {
  const [guest, handler, floorCopies] = ["guest", "handler", "copies"].map(compile)
  const lines = []
  for (const [threads, pages] of [[1, 4000], [8, 1000]]) {
    for (const args of [[], ["linger"], ["serve"], ["serve", "linger"]]) {
      const same = args.filter((each) => each === "serve")
      const { floor, ours } = await pairs(
        () => faults(guest, [handler, ...same], threads, pages),
        () => faults(guest, [...script("handler"), ...args], threads, pages)
      )
      const name = `fault, ${threads} thread${threads === 1 ? "" : "s"}${args.map((each) => `, ${each}`).join("")}`
      lines.push(compare(`${name}, p50`, "µs", floor, ours, "p50"))
      lines.push(compare(`${name}, p99`, "µs", floor, ours, "p99"))
      lines.push(compare(`${name}, events read and answered`, "1/s", floor, ours, "perSecond"))
    }
  }
  for (const [mode, pages, bursts] of [["single", 64, 400], ["scattered", 64, 400], ["contiguous", 64, 400]]) {
    const { floor, ours } = await pairs(
      () => copies([floorCopies], mode, pages, bursts),
      () => copies(script("copies"), mode, pages, bursts)
    )
    lines.push(compare(`copy, ${mode}, ${pages} pages`, "pages/s of CPU", floor, ours, "perSecond"))
  }
  const load = os.loadavg()[0].toFixed(1)
  console.log(
    `${os.cpus().length} CPUs (${
      os.cpus()[0].model
    }), Linux ${os.release()}, Node ${process.versions.node}, load ${load}, ${rounds} rounds`
  )
  console.log("| figure | C++ | package | package / C++ (median of pairs) | least … most | best / best |")
  console.log("| --- | --- | --- | --- | --- | --- |")
  for (const { best, floor, least, most, name, package: value, ratio, unit } of lines) {
    const number = (n) => n >= 1000 ? Math.round(n).toLocaleString("en") : n.toFixed(1)
    console.log(
      `| ${name} | ${number(floor)} ${unit} | ${number(value)} ${unit} | ${ratio.toFixed(2)} | ` +
        `${least.toFixed(2)} … ${most.toFixed(2)} | ${best.toFixed(2)} |`
    )
  }
}

main().finally(() => fs.rmSync(directory, { recursive: true }))
