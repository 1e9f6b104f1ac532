/**
 * The link cut after so many bytes, drawn by chance, of either direction, over unix and tcp, closed whole or only in that
 * direction. Whatever byte it is: both sides say what has happened, and agree; before the latch the guest goes on at the
 * source and is sent again, no wrong byte is ever seen, nothing is left over. All of it: `npm run test:cuts`.
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { Random } from "../hostile/Random.ts"
import * as Reference from "../hostile/Reference.ts"
import * as Host from "./Host.ts"
import * as Modules from "./Modules.ts"
import * as Relay from "./Relay.ts"
import { endDestination, open, openAgain, outcomeOf } from "./Remains.ts"

const whole = process.env["POSTCOPY_TEST_WHOLE"] === "1"
/** Cuts of one link, direction and kind. */
const CUTS = whole ? 25 : 2
const SEED = Number(process.env["POSTCOPY_TEST_SEED"] ?? 20_111_229)
/** Silence of both sides for this long after a cut is a hang, on however busy a machine. */
const PATIENCE_MILLIS = 30_000

const MEMORY = 2 ** 20
const blocks = [{ idstr: "pc.ram", length: MEMORY }]

/** Framing and pages get their share of the cuts: by bytes alone nearly all of them would fall into pages. */
const draw = (random: Random, direction: Relay.Cut["direction"]): number =>
  direction === "to the destination"
    ? random.oneIn(3) ? random.below(400) : random.below(MEMORY)
    : random.oneIn(4)
    ? random.below(4)
    : random.below(2500)

const withPatience = async <A>(what: string, from: Host.Guest, to: Host.Guest, waiting: Promise<A>): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      void Promise.all([from, to].map((side) => side.status().catch(String))).then(([source, destination]) => {
        reject(new Error(`${what}: hangs; ${JSON.stringify({ source, destination })}`))
      })
    }, PATIENCE_MILLIS)
  })
  return Promise.race([waiting, late]).finally(() => clearTimeout(timer))
}

/** Whether the destination got the switchover's byte; "all but" when everything before it. */
const switchover = (forwarded: Buffer): "yes" | "all but" | "no" => {
  const { messages, verdict } = Reference.savevm(forwarded, blocks, 4096, 2 ** 20)
  if (messages.at(-1)?.kind === "eof") return "yes"
  return verdict === "end" && messages.at(-1)?.kind === "guest" ? "all but" : "no"
}

const links = ["unix", "tcp"] as const
const directions = ["to the destination", "to the source"] as const
const kinds = ["closed", "halved"] as const
const groups = links.flatMap((link) =>
  directions.flatMap((direction) => kinds.map((kind) => ({ link, direction, kind })))
)

describe("a link that is cut", { timeout: whole ? 3_600_000 : 300_000 }, () => {
  it.each(groups)("over $link in what goes $direction, $kind", async ({ direction, kind, link }) => {
    const dir = Host.directory()
    const { module, witness } = Modules.watched(dir)
    const random = new Random(
      SEED + groups.findIndex((group) => group.link === link && group.direction === direction && group.kind === kind)
    )
    const source = () => Host.source(dir, module, { memory: 1 })
    const uri = link === "unix" ? `unix:${join(dir, "incoming")}` : "tcp:127.0.0.1:0"
    let from = await source()
    let before = open(from.pid)
    const outcomes = new Map<string, number>()
    let slowest = 0
    for (let n = 0; n < CUTS; n++) {
      const after = draw(random, direction)
      const background = random.oneIn(2)
      const what = `cut ${n} after ${after} bytes${background ? "" : ", without background"}`
      const to = await Host.destination(dir, module, uri, { memory: 1 })
      const relay = Relay.start(dir, to.uri, { direction, kind, after })
      const both = Promise.all([from.send(relay.uri, { background }), outcomeOf(to)])
      const [sent, outcome] = await withPatience(what, from, to, both)
      const cutAt = relay.cutAt()
      if (cutAt !== undefined) slowest = Math.max(slowest, performance.now() - cutAt)
      const said = `${what}: ${sent.code} ${sent.error?.message ?? ""} / ${outcome}`

      const switched = switchover(relay.forwarded())
      relay.close()
      if (switched === "no" && link === "unix") assert.strictEqual(sent.code, 75, said)
      if (switched !== "yes") assert.strictEqual(outcome, "source", said)
      if (sent.code === 0) assert.strictEqual(outcome, "completed", said)
      if (outcome === "completed" || outcome === "destination") {
        assert.isTrue((await to.call({ op: "verify" })).answer.ok, said)
      }
      if (sent.code === 75) {
        assert.strictEqual(outcome, "source", said)
        assert.isTrue((await from.call({ op: "verify" })).answer.ok, said)
        assert.deepEqual(await openAgain(from.pid, before), before, said)
      } else {
        assert.isDefined((await from.call({ op: "status" })).error, said)
        const code = await from.quit()
        assert.strictEqual(code, sent.code, said)
        from = await source()
        before = open(from.pid)
      }
      await endDestination(to)
      assert.isFalse(existsSync(witness), `${said}: the guest saw a wrong byte`)
      const outcomeKind = `${sent.code} / ${outcome}`
      outcomes.set(outcomeKind, (outcomes.get(outcomeKind) ?? 0) + 1)
    }
    await from.quit()
    assert.deepEqual(Host.leftIn(dir), [])
    if (whole) {
      console.log(`${link}, ${direction}, ${kind}:`, Object.fromEntries(outcomes), `slowest ${Math.round(slowest)} ms`)
    }
  })
})
