/** Guests whose memory is a memfd, of ordinary or of huge pages, on either side, over the real kernel. */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"

const HUGE = 2 * 2 ** 20
/** Huge pages of the two sides of a migration, and as many again for a process that has not quite ended. */
const NEEDED = 4 * Modules.blocks[0].length / HUGE

const pool = "/proc/sys/vm/nr_hugepages"
const add = (pages: number) => writeFileSync(pool, String(Number(readFileSync(pool, "utf8")) + pages))
beforeAll(() => add(NEEDED))
afterAll(() => add(-NEEDED))

const kinds = {
  anonymous: {},
  memfd: { backing: "memfd" },
  huge: { backing: "memfd", hugePageSize: HUGE }
} as const

const sides: ReadonlyArray<readonly [keyof typeof kinds, keyof typeof kinds]> = [
  ["memfd", "memfd"],
  ["anonymous", "huge"],
  ["huge", "memfd"]
]

const hosts = async (dir: string, [here, there]: typeof sides[number], args: ReadonlyArray<string> = []) =>
  Promise.all([
    Host.source(dir, Modules.notebook(dir, "here.mjs", kinds[here])),
    Host.destination(dir, Modules.notebook(dir, "there.mjs", kinds[there]), `unix:${join(dir, "incoming")}`, { args })
  ])

const end = async (dir: string, ...guests: ReadonlyArray<Host.Guest>) => {
  for (const guest of guests) assert.strictEqual(await guest.quit(), 0)
  assert.deepEqual(Host.leftIn(dir), [])
}

describe.each(sides)("a guest moves from %s to %s memory", (...kind) => {
  for (const background of [true, false]) {
    it(background ? "with background pages, while it works" : "page by page as it asks for them", async () => {
      const dir = Host.directory()
      const [from, to] = await hosts(dir, kind)
      await from.call({ op: "work" })
      const migration = Host.migrate(from, to.uri, background ? [] : ["--nobg"])
      await to.event("running")
      const { answer } = await to.call({ op: "verify" })
      assert.deepInclude(answer, { ok: true, pages: Modules.pages })
      const { report } = await to.event("completed")
      const { background: unasked, onDemand, removed, total } = report.pages
      assert.deepEqual([onDemand + unasked, removed], [total, 0])
      if (!background) assert.strictEqual(unasked, 0)
      const ended = await migration.ended
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.isTrue((await to.call({ op: "verify" })).answer.ok)
      await end(dir, from, to)
    })
  }

  it("and gives memory back before it came: it reads zero, and is not fetched", async () => {
    const dir = Host.directory()
    const [from, to] = await hosts(dir, kind)
    const migration = Host.migrate(from, to.uri, ["--nobg"])
    await to.event("running")
    assert.isTrue((await to.call({ op: "read", page: 0 })).answer.ok)
    // The second half, of which nothing has come; and of huge pages one that has.
    const discard = { op: "discard", offset: 4 * 2 ** 20, length: 4 * 2 ** 20 }
    assert.isUndefined((await to.call(discard)).error)
    assert.isUndefined((await to.call({ op: "discard", offset: 0, length: HUGE })).error)
    const { answer } = await to.call({ op: "verify" })
    assert.isTrue(answer.ok, JSON.stringify(answer))
    const { report } = await to.event("completed")
    const arrived = kind[1] === "huge" ? 512 : 1
    assert.strictEqual(report.pages.removed, 1024 + 512 - arrived)
    assert.strictEqual((await migration.ended).code, 0)
    assert.isTrue((await to.call({ op: "verify" })).answer.ok)
    await end(dir, from, to)
  })
})

describe("huge pages", () => {
  it("are given back whole: anything else is an error of the guest's own", async () => {
    const dir = Host.directory()
    const from = await Host.source(dir, Modules.notebook(dir, "huge.mjs", kinds.huge))
    const { error } = await from.call({ op: "discard", offset: 4096, length: 4096 })
    assert.match(error!.message, /not whole pages of 2097152 bytes within pc\.ram/)
    await end(dir, from)
  })

  it("that the host does not have are a clear error, before anything listens", async () => {
    const dir = Host.directory()
    for (
      const [size, reason] of [[2 ** 20, /none of this size.*ENODEV/], [
        2 ** 21,
        /not 524288 of them free.*ENOMEM/
      ]] as const
    ) {
      const module = Modules.bare(dir, { length: 2 ** 40, backing: "memfd", hugePageSize: size })
      const { code, error } = await Host.postcopy("receive", module, `unix:${join(dir, "incoming")}`)
      assert.strictEqual(code, 1)
      assert.match(error!.message, reason)
    }
    assert.deepEqual(Host.leftIn(dir), [])
  })
})
