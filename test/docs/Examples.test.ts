/** The programs in `examples/`, run as their headers say. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { directory, start } from "../cli/Postcopy.ts"
import { canReceive, why } from "../cli/Shells.ts"

const example = (path: string, ...args: ReadonlyArray<string>) =>
  start(args, { command: [process.execPath, fileURLToPath(new URL(`../../examples/${path}`, import.meta.url))] })

/** The first line of its stdout that is JSON. */
const firstLine = async (running: ReturnType<typeof example>) =>
  JSON.parse(
    await new Promise<string>((resolve, reject) => {
      let text = ""
      running.child.stdout!.on("data", (chunk: Buffer) => {
        text += chunk.toString()
        if (text.includes("\n")) resolve(text.split("\n")[0]!)
      })
      void running.ended.then(({ stderr }) => reject(new Error(`ended: ${stderr}`)))
    })
  )

describe.skipIf(!canReceive)(`examples${why}`, { timeout: 120_000 }, () => {
  it("embedding: layers of the program's own are used", async () => {
    const { code, objects, stderr } = await example("embedding/program.ts").ended
    assert.strictEqual(code, 0, stderr)
    assert.deepStrictEqual(objects, [
      { state: "completed", pages: 2048, answer: { account: 2, balance: 1300 }, counted: true }
    ])
  })

  it("sqlite-http: every request that a client sends while the database moves is answered, and carried out once", async () => {
    const uri = `unix:${join(directory(), "link")}`
    const source = example("sqlite-http/server.ts", "source", "0")
    const destination = example("sqlite-http/server.ts", "destination", "0", uri)
    const [here, there] = await Promise.all([firstLine(source), firstLine(destination)])
    const ask = async (path: string, body: unknown): Promise<any> => {
      const response = await fetch(`${here.http}${path}`, { method: "POST", body: JSON.stringify(body) })
      const answer = await response.json()
      assert.strictEqual(response.status, 200, JSON.stringify(answer))
      return answer
    }
    await ask("/query", { sql: "CREATE TABLE visits (n INTEGER)" })
    let asked = 0
    let moving = true
    const client = (async () => {
      while (moving || asked < 20) await ask("/query", { sql: "INSERT INTO visits VALUES (?)", params: [asked++] })
    })()
    while (asked < 3) await new Promise(setImmediate)
    const report = await ask("/move", { to: uri, http: there.http })
    moving = false
    await client
    assert.strictEqual(report.state, "completed")
    const { rows } = await ask("/query", { sql: "SELECT count(*), count(DISTINCT n) FROM visits" })
    assert.deepStrictEqual(rows, [[asked, asked]])
    for (const { child, ended } of [source, destination]) {
      child.kill("SIGTERM")
      await ended
    }
  })
})

describe.skipIf(!canReceive)(`examples/v86${why}`, { timeout: 120_000 }, () => {
  const guest = fileURLToPath(new URL("../../examples/v86/guest.ts", import.meta.url))

  it("an x86 machine moves between two processes while it runs, and never finds a wrong word", async () => {
    const folder = directory()
    const [here, there, uri] = [join(folder, "here"), join(folder, "there"), `unix:${join(folder, "link")}`]
    const running = start(["run", guest, "--control", here, "--json"])
    const receiving = start(["receive", guest, uri, "--control", there, "--json"])
    await Promise.all([running.event("running"), receiving.event("listening")])
    const status = async (control: string) => {
      const { code, objects, stderr } = await start(["call", "--control", control, "--json", `{"op":"status"}`]).ended
      assert.strictEqual(code, 0, stderr)
      return objects[0]
    }
    /** Waits for passes over all of its memory, by asking. */
    const passed = async (control: string, passes: number): Promise<any> => {
      for (;;) {
        const now = await status(control)
        if (now.passes >= passes || now.badAddress !== 0) return now
      }
    }
    const before = await passed(here, 1)
    assert.strictEqual((await start(["migrate", uri, "--control", here]).ended).code, 0)
    const after = await passed(there, before.passes + 3)
    assert.deepStrictEqual([after.badAddress, after.serial.errors], [0, 0])
    assert.isAtLeast(after.serial.ticks, before.serial.ticks + 3)
    assert.isAtLeast(after.passes, before.passes + 3)
    for (const control of [here, there]) assert.strictEqual((await start(["quit", "--control", control]).ended).code, 0)
  })

  it("its ROM is what its source says", () => {
    const folder = directory()
    const source = fileURLToPath(new URL("../../examples/v86/rom.S", import.meta.url))
    execFileSync("as", ["--32", source, "-o", join(folder, "rom.o")])
    execFileSync("ld", [
      "-m",
      "elf_i386",
      "-Ttext",
      "0",
      "-e",
      "0",
      "--oformat",
      "binary",
      join(folder, "rom.o"),
      "-o",
      join(folder, "rom.bin")
    ])
    const written = /rom =([\s\S]*?)\n\n/.exec(readFileSync(guest, "utf8"))![1]!.match(/"([^"]*)"/g)!.map((part) =>
      part.slice(1, -1)
    ).join("")
    assert.strictEqual(readFileSync(join(folder, "rom.bin")).toString("base64"), written)
  })
})
