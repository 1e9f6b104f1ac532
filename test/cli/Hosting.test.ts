import { assert, describe, it } from "@effect/vitest"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { directory, postcopy, start } from "./Postcopy.ts"
import { canReceive, library } from "./Shells.ts"

describe("a guest's process", { timeout: 60_000 }, () => {
  const module = (source: string) => {
    const path = join(directory(), "guest.ts")
    writeFileSync(path, source)
    return path
  }

  it("whose module throws, or is none, is not started: exit 1", async () => {
    for (const source of ["throw new Error('no way')", "export default 5"]) {
      const path = module(source)
      for (const args of [["run", path], ["receive", path, "unix:link"]]) {
        const { code, error, stdout } = await start([...args, "--json"], { cwd: directory() }).ended
        assert.deepStrictEqual([code, stdout], [canReceive || args[0] === "run" ? 1 : 69, ""])
        if (code === 1) assert.include(error.message, path)
      }
    }
  })

  it("whose guest throws while it runs ends with it: exit 70", async () => {
    const path = module(`
      import { Guest } from ${JSON.stringify(library)}
      let steps = 0
      export default Guest.memory({
        blocks: [{ idstr: "pc.ram", length: 65536 }],
        step: () => { if (++steps > 10) throw new Error("worn out") }
      })`)
    const { code, error, objects } = await postcopy("run", path, "--json")
    assert.deepStrictEqual([code, objects], [70, [{ event: "running" }]])
    assert.include(error.message, "worn out")
  })

  it("prints nothing of the guest's between its events", async () => {
    const path = module(`
      import { Guest } from ${JSON.stringify(library)}
      console.log("loading")
      export default Guest.memory({
        blocks: [{ idstr: "pc.ram", length: 65536 }],
        start: () => console.log("starting"),
        call: () => 1
      })`)
    const running = start(["run", path, "--json"])
    await running.event("running")
    running.child.kill("SIGINT")
    const { code, stdout } = await running.ended
    assert.deepStrictEqual([code, stdout], [130, `{"event":"running"}\n`])
  })

  it("pauses and resumes its guest; calls wait", async () => {
    const control = join(directory(), "s")
    const running = start(["run", "counter", "--memory", "1", "--control", control, "--json"])
    await running.event("running")
    assert.strictEqual((await postcopy("pause", "--control", control)).code, 0)
    assert.include((await postcopy("status", "--control", control, "--json")).objects[0], { state: "paused" })
    const waiting = start(["call", `{"op":"verify"}`, "--control", control, "--json"])
    assert.strictEqual((await postcopy("resume", "--control", control)).code, 0)
    assert.isTrue((await waiting.ended).objects[0].ok)
    assert.strictEqual((await postcopy("call", `{"op":"?"}`, "--control", control)).code, 1)
    assert.strictEqual((await postcopy("quit", "--control", control)).code, 0)
    assert.strictEqual((await running.ended).code, 0)
  })
})

describe("a host without the addon", { timeout: 120_000 }, () => {
  const env = { NODE_OPTIONS: `--require ${fileURLToPath(new URL("./NoAddon.cjs", import.meta.url))}` }

  it("B44: refuses to receive, and only that, before it listens: exit 69", async () => {
    const cwd = directory()
    const { code, error, stdout } = await start(["receive", "counter", "unix:link", "--control", "d", "--json"], {
      cwd,
      env
    }).ended
    assert.deepStrictEqual([code, stdout, error.tag], [69, "", "Unsupported"])
    assert.deepStrictEqual(readdirSync(cwd), [])
    const running = start(["run", "counter", "--memory", "1", "--control", "s", "--json"], { cwd, env })
    await running.event("running")
    assert.strictEqual((await start(["quit", "--control", "s"], { cwd, env }).ended).code, 0)
    assert.strictEqual((await running.ended).code, 0)
  })

  it.skipIf(!canReceive)("B43: still sends", async () => {
    const cwd = directory()
    const source = start(["run", "counter", "--memory", "8", "--control", "s", "--json"], { cwd, env })
    const destination = start(["receive", "counter", "unix:link", "--memory", "8", "--exit-when-complete", "--json"], {
      cwd
    })
    await source.event("running")
    await destination.event("listening")
    const { code, stderr } = await start(["migrate", "unix:link", "--control", "s"], { cwd, env }).ended
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual((await destination.ended).code, 0)
  })

  it("is told by doctor, with the remedy: exit 69", async () => {
    const { code, error, objects } = await start(["doctor", "--json"], { env }).ended
    assert.deepStrictEqual([code, objects[0].canReceive], [69, false])
    assert.include(error.message, "npm rebuild")
  })
})
