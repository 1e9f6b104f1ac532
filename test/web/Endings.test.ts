/**
 * How a migration that does not come to its end looks: taken back from the live page, refused there when it is too late,
 * and failed, live and in the reports of both sides. Real processes; what breaks is a peer of the test's own or a process
 * that is killed.
 */
import { assert, describe, it } from "@effect/vitest"
import { once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { connect, createServer, type Socket } from "node:net"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import type { Page } from "playwright-core"
import { onTestFinished } from "vitest"
import { directory, postcopy, start } from "../cli/Postcopy.ts"
import { canReceive, why } from "../cli/Shells.ts"
import { hasBrowser, noBrowser, open, says, text } from "./Browser.ts"

const MEMORY = ["--memory", "32"]

/** The rows of the table of phases. */
const phases = async (page: Page) => {
  const rows = await page.locator("#timeline-table tbody tr").evaluateAll((all) =>
    all.map((row) =>
      [...(row as unknown as { cells: Iterable<{ textContent: string }> }).cells].map((c) => c.textContent)
    )
  )
  return rows.map(([side, phase]) => `${side}: ${phase}`)
}

/** Somebody who takes the connection and never reads: the source cannot get rid of what comes before the switchover. */
const deafPeer = async (path: string) => {
  const sockets: Array<Socket> = []
  const server = createServer({ pauseOnConnect: true }, (socket) => void sockets.push(socket.on("error", () => {})))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  server.listen(path)
  await once(server, "listening")
  return `unix:${path}`
}

/** A link that can be cut. */
const cable = async (path: string, to: string) => {
  const ends: Array<Socket> = []
  const server = createServer((near) => {
    const far = connect(to)
    ends.push(near.on("error", () => {}), far.on("error", () => {}))
    near.pipe(far)
    far.pipe(near)
  })
  const cut = () => {
    for (const end of ends) end.destroy()
    server.close()
  }
  onTestFinished(cut)
  server.listen(path)
  await once(server, "listening")
  return { uri: `unix:${path}`, cut }
}

const source = async (folder: string) => {
  const control = join(folder, "here")
  const running = start(["run", "counter", ...MEMORY, "--control", control, "--json"])
  await running.event("running")
  return { control, ...running }
}

const destination = async (folder: string, ...args: ReadonlyArray<string>) => {
  const control = join(folder, "there")
  const uri = `unix:${join(folder, "link")}`
  const receiving = start(["receive", "counter", uri, ...MEMORY, "--control", control, "--json", ...args])
  await receiving.event("listening")
  return { control, uri, ...receiving }
}

const livePage = async (control: string) => {
  const { event } = start(["status", "--control", control, "--web", "--json"])
  const { url } = await event("web")
  return { url, ...await open(url) }
}

const call = async (control: string, op: string) =>
  (await postcopy("call", "--control", control, JSON.stringify({ op }), "--json")).objects[0]

/** As the page would, whatever its button allows. */
const ask = async (url: string, action: unknown): Promise<string> => {
  const { origin, searchParams } = new URL(url)
  const answer = await fetch(`${origin}/control`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-postcopy-token": searchParams.get("key")! },
    body: JSON.stringify(action)
  })
  return ((await answer.json()) as { message: string }).message
}

describe.skipIf(!hasBrowser)(`Cancel on the live page${noBrowser}`, { timeout: 120_000 }, () => {
  it("takes back a migration that has not switched over, by the keyboard alone: the guest runs on", async () => {
    const folder = directory()
    const here = await source(folder)
    const report = join(folder, "report.html")
    const { complaints, page } = await livePage(here.control)
    await says(page, "#summary", "There is no migration. The guest runs here.")
    assert.isTrue(await page.locator("#cancel").isDisabled(), "there is nothing to cancel yet")

    const to = await deafPeer(join(folder, "deaf"))
    const migrating = start(["migrate", to, "--control", here.control, "--report", report, "--json"])
    await page.locator("#cancel:enabled").waitFor()
    await page.locator("body").click({ position: { x: 1, y: 1 } })
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab")
      if (await page.locator("#cancel:focus").count() === 1) break
    }
    await page.keyboard.press("Enter")
    await says(page, "#said", "cancelled; the guest runs on at the source")

    const { code, error } = await migrating.ended
    assert.deepStrictEqual([code, error.tag, error.guest], [75, "Cancelled", "source"])
    await says(page, "#state-source", "guest runs")
    await says(page, "#summary", "The migration was cancelled. The guest runs here.")
    // The focus stays where the key was pressed, the button does not do it again.
    await page.locator("#cancel:focus[aria-disabled=true]").waitFor()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Shift+Tab")
    await page.locator("#cancel:disabled").waitFor()
    assert.strictEqual(await text(page, "#said"), "cancelled; the guest runs on at the source")
    assert.include(await text(page, "#error"), "the guest still runs at the source, and can be migrated again")
    assert.strictEqual((await phases(page)).at(-1), "source: cancelled")
    assert.deepStrictEqual(complaints, [])
    const { objects } = await postcopy("status", "--control", here.control, "--json")
    assert.strictEqual(objects[0].state, "running")
    assert.isTrue((await call(here.control, "verify")).ok)

    // The command's own report tells the same.
    const { page: after } = await open(pathToFileURL(report).href)
    assert.include(await text(after, "#error"), "the migration was cancelled")
    assert.strictEqual((await phases(after)).at(-1), "source: cancelled")
  })

  it("is what Ctrl-C does, too, and the report says so", async () => {
    const folder = directory()
    const here = await source(folder)
    const report = join(folder, "report.json")
    const to = await deafPeer(join(folder, "deaf"))
    const migrating = start(["migrate", to, "--control", here.control, "--report", report, "--json"])
    let state = ""
    while (state !== "migrating") {
      state = (await postcopy("status", "--control", here.control, "--json")).objects[0].state
    }
    migrating.child.kill("SIGINT")
    assert.strictEqual((await migrating.ended).code, 130)
    const { ended, error, sides } = JSON.parse(readFileSync(report, "utf8"))
    assert.deepStrictEqual([ended, error], [true, "interrupted: cancelled; the guest runs on at the source"])
    assert.strictEqual(sides.source.status.state, "running")
    assert.strictEqual(sides.source.timeline.at(-1).phase, "cancelled")
  })

  it.skipIf(!canReceive)(`is not offered once the guest has switched over, and refused to who asks${why}`, async () => {
    const folder = directory()
    const here = await source(folder)
    const there = await destination(folder)
    const { page, url } = await livePage(here.control)
    const migrating = start(["migrate", there.uri, "--control", here.control, "--nobg", "--json"])
    await there.event("running")
    await says(page, "#state-source", "guest has left, pages follow")
    assert.isTrue(await page.locator("#cancel").isDisabled())
    assert.isFalse(await page.locator("#background").isDisabled())
    assert.include(await ask(url, { action: "cancel" }), "cannot be cancelled any more")

    // It goes on as if nobody had asked.
    await page.locator("#background").focus()
    await page.keyboard.press("Enter")
    const { code, stderr } = await migrating.ended
    assert.strictEqual(code, 0, stderr)
    await there.event("completed")
    await says(page, "#state-source", "guest has left, all is sent")
    assert.isTrue((await call(there.control, "verify")).ok)
  })
})

/** The process of a demo that holds the source's guest, once it is there. */
const sourceOf = async (demo: number): Promise<number> => {
  for (;;) {
    for (const pid of readFileSync(`/proc/${demo}/task/${demo}/children`, "utf8").split(" ").filter(Boolean)) {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes("run")) return Number(pid)
    }
    await new Promise(setImmediate)
  }
}

describe.skipIf(!canReceive)(`a demo that failed${why}`, { timeout: 120_000 }, () => {
  it("ends and reports with the same sentence", async () => {
    const report = join(directory(), "report.json")
    // It waits for somebody to look at its page, which nobody does.
    const demo = start(["demo", "--guest", "counter", "--memory", "4", "--web", "--report", report, "--json"])
    await demo.event("web")
    process.kill(await sourceOf(demo.child.pid!), "SIGKILL")
    const { code, error } = await demo.ended
    assert.strictEqual(code, 70)
    assert.include(error.message, "source: its process ended unasked (SIGKILL)")
    const written = JSON.parse(readFileSync(report, "utf8"))
    assert.deepInclude(written, { ended: true, error: error.message })
    assert.isUndefined(written.outcome)
  })

  it("leaves no empty report where nothing was begun", async () => {
    const folder = directory()
    const report = join(folder, "report.html")
    const args = ["receive", "counter", "unix:/nowhere/link", "--memory", "4", "--report", report]
    assert.notStrictEqual((await start(args).ended).code, 0)
    assert.deepStrictEqual(readdirSync(folder), [])
  })
})

describe.skipIf(!hasBrowser)(`a migration that failed${noBrowser}`, { timeout: 120_000 }, () => {
  it("before the switchover: the report says so, where the guest is, and how far it came", async () => {
    const folder = directory()
    const here = await source(folder)
    const report = join(folder, "report.html")
    const { code } = await start([
      "migrate",
      `unix:${join(folder, "nobody")}`,
      "--control",
      here.control,
      "--report",
      report
    ]).ended
    assert.strictEqual(code, 75)
    const { complaints, page } = await open(pathToFileURL(report).href)
    const error = await text(page, "#error")
    assert.match(error, /ENOENT|ECONNREFUSED/)
    assert.include(error, join(folder, "nobody"))
    assert.include(error, "the guest still runs at the source, and can be migrated again")
    assert.include(await text(page, "#summary"), "The migration has failed. The guest runs here.")
    assert.deepStrictEqual(await phases(page), ["source: rehearsal, connecting", "source: failed"])
    assert.deepStrictEqual(complaints, [])
  })

  it.skipIf(!canReceive)(`when the link is cut: the source's page and the reports of both sides${why}`, async () => {
    const folder = directory()
    const here = await source(folder)
    const [sent, received] = [join(folder, "sent.html"), join(folder, "received.html")]
    const there = await destination(folder, "--report", received)
    const link = await cable(join(folder, "cable"), join(folder, "link"))
    const { complaints, page } = await livePage(here.control)
    const migrating = start(["migrate", link.uri, "--control", here.control, "--nobg", "--report", sent, "--json"])
    await there.event("running")
    await says(page, "#state-source", "guest has left, pages follow")
    link.cut()
    const { code, error } = await migrating.ended
    assert.deepStrictEqual([code, error.guest], [70, "destination"])
    await there.event("failed")

    await says(page, "#state-source", "failed")
    const ofSource = await open(pathToFileURL(sent).href)
    const ofDestination = await open(pathToFileURL(received).href)
    for (const shown of [page, ofSource.page]) {
      assert.strictEqual(await text(shown, "#error"), error.message)
      assert.match(
        await text(shown, "#summary"),
        /^The migration has failed; [\d\u202f]+ of 8\u202f192 pages were not sent\.$/
      )
      assert.deepStrictEqual(await phases(shown), [
        "source: rehearsal, connecting",
        "source: guest runs, blocks judged",
        "source: paused: device state",
        "source: pages follow",
        "source: failed"
      ])
      assert.match(await text(shown, "#legend"), /not sent yet\s*[\d\u202f]+/)
      assert.strictEqual(await shown.getByRole("alert").count(), 1)
    }
    assert.isTrue(await page.locator("#cancel").isDisabled())
    assert.include(await text(ofDestination.page, "#error"), "the guest is parked at the destination")
    assert.deepStrictEqual([...complaints, ...ofSource.complaints, ...ofDestination.complaints], [])
    assert.strictEqual((await postcopy("quit", "--control", there.control)).code, 0)
  })

  it.skipIf(!canReceive)(
    `when the source is killed: the destination's report, for eyes and programs${why}`,
    async () => {
      for (const format of ["html", "json"] as const) {
        const folder = directory()
        const here = await source(folder)
        const report = join(folder, `report.${format}`)
        const there = await destination(folder, "--report", report)
        const { ended } = start(["migrate", there.uri, "--control", here.control, "--nobg"])
        await there.event("running")
        here.child.kill("SIGKILL")
        await ended
        const { error } = await there.event("failed")
        assert.strictEqual(error.guest, "parked")
        if (format === "json") {
          const written = JSON.parse(readFileSync(report, "utf8"))
          assert.deepInclude(written, { ended: true, error: error.message })
          assert.strictEqual(written.reports.destination.state, "failed")
          assert.strictEqual(written.sides.destination.timeline.at(-1).phase, "failed")
        } else {
          const { complaints, page } = await open(pathToFileURL(report).href)
          assert.strictEqual(await text(page, "#error"), error.message)
          assert.include(error.message, "quit it there and start from a backup")
          assert.match(
            await text(page, "#summary"),
            /[\d\u202f]+ of 8\u202f192 pages are missing at the destination\.$/
          )
          assert.match(await text(page, "#legend"), /^missing [\d\u202f]+/)
          const seen = await phases(page)
          assert.includeMembers(seen, ["destination: arriving", "destination: daemon takes over"])
          assert.strictEqual(seen.at(-1), "destination: failed")
          assert.deepStrictEqual(complaints, [])
        }
        assert.strictEqual((await postcopy("quit", "--control", there.control)).code, 0)
      }
    }
  )
})
