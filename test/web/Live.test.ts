/**
 * The live page as a person has it: a real demo, a real browser, the keyboard. `npm run screenshots` keeps the pictures of
 * this test as those of the documentation.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import type { Page } from "playwright-core"
import { directory, start } from "../cli/Postcopy.ts"
import { canReceive, why } from "../cli/Shells.ts"
import { hasBrowser, noBrowser, open, says, text } from "./Browser.ts"

const images = process.env["POSTCOPY_SCREENSHOTS"] === undefined
  ? directory
  : () => fileURLToPath(new URL("../../docs/images", import.meta.url))

/** The pictures that the page gets, up to the first that is `enough`; the newest first. */
const pictures = async (url: string, enough: (picture: any) => boolean) => {
  const seen: Array<any> = []
  let rest = ""
  for await (const chunk of (await fetch(url)).body!.pipeThrough(new TextDecoderStream())) {
    const events = (rest + chunk).split("\n\n")
    rest = events.pop()!
    for (const event of events) seen.unshift(JSON.parse(event.slice(event.indexOf("{"))))
    if (seen.length > 0 && enough(seen[0])) break
  }
  return seen
}

const questions = readFileSync(new URL("./in-page.js", import.meta.url), "utf8").replace("export ", "")

/** One of the questions of `in-page.js`. */
const ask = <A>(page: Page, question: "colours" | "faint" | "focused"): Promise<A> =>
  page.evaluate(`(() => { ${questions}; return inPage.${question}() })()`)

/** Presses Tab until the element has the focus, as somebody without a mouse would. */
const tabTo = async (page: Page, id: string) => {
  for (let presses = 0; presses < 20; presses++) {
    await page.keyboard.press("Tab")
    if (await ask(page, "focused") === id) return
  }
  assert.fail(`Tab never reaches #${id}`)
}

describe.skipIf(!canReceive || !hasBrowser)(`the live page${why}${noBrowser}`, { timeout: 120_000 }, () => {
  it("shows a demo as it happens, is used with the keyboard, and ends as a report", async () => {
    const folder = images()
    const report = join(directory(), "report.html")
    const demo = start(["demo", "--memory", "384", "--max-bandwidth", "12M", "--web", "--report", report, "--json"])
    const { url } = await demo.event("web")
    assert.strictEqual(new URL(url).hostname, "127.0.0.1")
    const { complaints, page, requests } = await open(url)

    // The guest runs there, and most of its memory does not.
    await says(page, "#state-destination", "guest runs")
    await says(page, "#wire-label", /^(1[5-9]|[2-9]\d)/)
    assert.include(await text(page, "#state-source"), "pages follow")
    assert.include(await text(page, "#summary"), "The guest runs at the destination while its memory follows")
    const blue = "47,111,219"
    assert.isAbove(
      (await ask<Record<string, number>>(page, "colours"))[blue] ?? 0,
      1000,
      "the map shows no background pages"
    )
    await page.screenshot({ path: join(folder, "live-light.png") })
    await page.emulateMedia({ colorScheme: "dark" })
    await page.screenshot({ path: join(folder, "live-dark.png") })
    await page.emulateMedia({ colorScheme: "light" })

    await page.locator("body").click({ position: { x: 1, y: 1 } })
    await tabTo(page, "bandwidth")
    await tabTo(page, "background")
    await page.keyboard.press("Enter")
    await says(page, "#said", "only pages that are asked for are sent")
    await page.locator("#background[aria-pressed=false]").waitFor()
    await page.keyboard.press("Space")
    await page.locator("#background[aria-pressed=true]").waitFor()
    await page.locator("#bandwidth").selectOption({ label: "unlimited" })
    await says(page, "#said", "the limit is unlimited")

    await page.locator("html[data-ended=true]").waitFor({ timeout: 90_000 })
    assert.include(await text(page, "#numbers"), "Verified: the guest is whole.")
    assert.include(await text(page, "#summary"), "The migration is complete")
    assert.isTrue(await page.locator("#background").isDisabled())
    const { code, objects, stderr } = await demo.ended
    assert.strictEqual(code, 0, stderr)
    assert.deepStrictEqual(complaints, [])
    assert.deepStrictEqual(
      requests.filter((one) => !one.startsWith(new URL(url).origin) && !one.startsWith("data:")),
      []
    )

    const shown = await text(page, "#numbers")
    const { destination } = objects.at(-1)
    for (const figure of [destination.pages.onDemand, destination.faults.count]) {
      assert.include(shown.replaceAll("\u202f", ""), String(figure))
    }

    // The report has the same, from a file, with nothing fetched.
    assert.isTrue(existsSync(report))
    const second = await open(pathToFileURL(report).href)
    assert.deepStrictEqual(second.complaints, [])
    assert.deepStrictEqual(second.requests.filter((one) => !one.startsWith("data:")), [pathToFileURL(report).href])
    assert.strictEqual(await text(second.page, "#numbers"), shown)
    assert.isFalse(await second.page.locator("#controls").isVisible())
    await second.page.screenshot({ path: join(folder, "report.png"), fullPage: true })
  })

  it("has a name for everything that a screen reader meets, and no text that fades into its background", async () => {
    const report = join(directory(), "report.html")
    assert.strictEqual((await start(["demo", "--guest", "counter", "--memory", "4", "--report", report]).ended).code, 0)
    const bars = "#timeline g text"
    for (const scheme of ["light", "dark"] as const) {
      const { page } = await open(pathToFileURL(report).href, scheme)
      const tree = await page.locator("main").ariaSnapshot()
      assert.match(tree, /img "missing 0, requested 0, received on demand [\d\u202f]+, received in background/)
      assert.match(tree, /img "Phases of the migration; the same as a table below"/)
      assert.match(tree, /img "[\d\u202f]+ page requests, half of them answered within/)
      assert.include(tree, "row \"downtime")
      assert.isAbove(await page.locator(bars).count(), 1)
      assert.deepStrictEqual(await ask(page, "faint"), [], scheme)
    }
  })
})

describe.skipIf(!canReceive)(`reports and the page of a status${why}`, { timeout: 120_000 }, () => {
  it("a report for programs has the figures, the phases and the map", async () => {
    const file = join(directory(), "report.json")
    const { code, objects } = await start(["demo", "--guest", "counter", "--memory", "16", "--json", "--report", file])
      .ended
    assert.strictEqual(code, 0)
    const report = JSON.parse(readFileSync(file, "utf8"))
    assert.deepInclude(report, { format: "postcopy-report", version: 1, ended: true })
    assert.deepStrictEqual(report.reports, { source: objects[0].source, destination: objects[0].destination })
    const phases = (side: string) => report.sides[side].timeline.map(({ phase }: { phase: string }) => phase)
    assert.deepStrictEqual(phases("source"), ["connecting", "announced", "paused", "switchover", "completed"])
    assert.includeMembers(phases("destination"), [
      "listening",
      "arriving",
      "handover",
      "running",
      "answered",
      "completed"
    ])
    const { onDemand, background, total } = report.sides.destination.pages
    const counts = Buffer.from(report.sides.destination.cells.counts, "base64")
    const sum = (offset: number) => counts.reduce((all, n, i) => i % 4 === offset ? all + n : all, 0)
    assert.deepStrictEqual([sum(0), sum(1), sum(2), sum(3)], [0, onDemand, background, 0])
    assert.strictEqual(onDemand + background, total)
    assert.strictEqual(
      report.sides.destination.histogram.reduce((all: number, n: number) => all + n, 0),
      report.sides.destination.faults.count
    )
  })

  it("is given ten pictures a second and no more, however fast the guest faults", async () => {
    const args = ["--guest", "counter", "--memory", "96", "--nobg", "--max-bandwidth", "32M", "--web", "--json"]
    const demo = start(["demo", ...args])
    const { url } = await demo.event("web")
    const seen = (await pictures(new URL("/events", url).href, ({ ended }) => ended)).reverse()
    assert.strictEqual((await demo.ended).code, 0)
    // What counts is the server's own clock; the last picture is of the end, and does not wait for its turn.
    const times = seen.slice(0, -1).map(({ takenAt }) => takenAt as number)
    const gaps = times.slice(1).map((time, i) => time - times[i]!)
    assert.isAtLeast(gaps.length, 10)
    // A timer of Node counts whole milliseconds: it may end within the last of them.
    assert.isAtLeast(Math.min(...gaps), 99)
    const faults = seen.map(({ sides }) => sides.destination?.faults.count ?? 0)
    assert.isAbove(Math.max(...faults), 100 * seen.length, "that guest hardly faults")
  })

  it.each([
    [["demo", "--report", "report.txt"], "ends in .html"],
    [["demo", "--report", "/nowhere/report.html"], "cannot be written (ENOENT)"],
    [["demo", "--web", "70000"], "HOST:PORT"],
    [["demo", "--web", "192.0.2.1:80"], "cannot be served at 192.0.2.1:80"]
  ])("%j is refused before anything is moved", async (args, words) => {
    const { code, stderr } = await start(args).ended
    assert.strictEqual(code, 1)
    assert.include(stderr, words)
  })

  it("migrate and receive write their own sides; status serves what it can see", async () => {
    const folder = directory()
    const [source, destination] = [join(folder, "s"), join(folder, "d")]
    const running = start(["run", "counter", "--memory", "4", "--control", source, "--json"])
    await running.event("running")
    const there = join(folder, "there.json")
    const receiving = start([
      "receive",
      "counter",
      `unix:${folder}/link`,
      "--memory",
      "4",
      "--control",
      destination,
      "--report",
      there,
      "--json"
    ])
    await receiving.event("listening")
    const status = start(["status", "--control", source, "--web", "--json"])
    const { url } = await status.event("web")
    const here = join(folder, "here.json")
    const { code, stderr } = await start([
      "migrate",
      `unix:${folder}/link`,
      "--control",
      source,
      "--report",
      here,
      "--json"
    ]).ended
    assert.strictEqual(code, 0, stderr)
    await receiving.event("completed")
    const [sent, received] = [here, there].map((file) => JSON.parse(readFileSync(file, "utf8")))
    assert.deepStrictEqual(Object.keys(sent.sides), ["source"])
    assert.deepStrictEqual(Object.keys(received.sides), ["destination"])
    assert.strictEqual(sent.reports.source.state, "completed")
    assert.strictEqual(received.reports.destination.state, "completed")
    const { hostname, port } = new URL(url)
    const [last] = await pictures(
      `http://${hostname}:${port}/events`,
      ({ sides }) => sides.source.status.state === "completed"
    )
    assert.deepInclude(last.sides.source.pages, { total: sent.reports.source.pages.total })
    assert.strictEqual((await start(["quit", "--control", source]).ended).code, 0)
    // The process is gone: so is the page.
    assert.strictEqual((await status.ended).code, 0)
    assert.strictEqual((await start(["quit", "--control", destination]).ended).code, 0)
  })
})
