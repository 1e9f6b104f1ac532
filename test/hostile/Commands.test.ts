/**
 * The same hostile streams against the real commands, a few of them: a process costs a second, an input of the harness
 * less than one in a thousand of that. Whatever comes, `receive` says what has happened and can be told to go, and the
 * source of a `migrate` goes on with its guest or says where it is.
 */
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { connect, createServer, type Socket } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it, onTestFinished } from "vitest"
import * as Host from "../e2e/Host.ts"
import { endDestination } from "../e2e/Remains.ts"
import * as Wire from "../e2e/Wire.ts"
import { mutated } from "./Mutation.ts"
import { Random } from "./Random.ts"
import * as Reference from "./Reference.ts"
import * as Streams from "./Streams.ts"

const INPUTS = Number(process.env["POSTCOPY_TEST_COMMANDS"] ?? 4)
const SEED = Number(process.env["POSTCOPY_TEST_SEED"] ?? 20_111_229)

const streams = Streams.of(Wire.PAGE)
const { blocks } = streams
const index = fileURLToPath(new URL("../../src/index.ts", import.meta.url))

/** A guest that takes any device state and touches no memory of its own accord. */
const calm = (dir: string): string => {
  const module = join(dir, "calm.mjs")
  writeFileSync(
    module,
    `import { Guest } from ${JSON.stringify(index)}
export default Guest.memory({
  blocks: ${JSON.stringify(blocks)},
  call: () => "here",
  save: () => new Uint8Array(3),
  restore: () => {}
})
`
  )
  return module
}

/** Writes until the other side stops taking it, and ends. */
const say = (socket: Socket, bytes: Uint8Array) => {
  socket.on("error", () => {}).resume()
  socket.end(bytes)
}

describe("hostile bytes to the commands", { timeout: INPUTS * 60_000 }, () => {
  it("of a source: `receive` fails before the switchover, parks after it, or completes", async () => {
    const dir = Host.directory()
    const module = calm(dir)
    for (let seed = SEED; seed < SEED + INPUTS; seed++) {
      const random = new Random(seed)
      const opening = random.oneIn(3) ? mutated(streams.savevm(random), random) : streams.savevm(random)
      const bytes = Buffer.concat([opening, mutated(streams.pageStream(random), random)])
      const { messages } = Reference.savevm(bytes, blocks, Wire.PAGE, 64 * 2 ** 20)
      const switched = messages.at(-1)?.kind === "eof" && messages.some(({ kind }) => kind === "sizes")
      const to = await Host.destination(dir, module, `unix:${join(dir, "incoming")}`)
      const socket = connect(to.uri.slice("unix:".length))
      say(socket, bytes)
      const { error, event } = await to.line(({ event }) => event === "failed" || event === "completed")
      const said = `seed ${seed}: ${JSON.stringify(error)}`
      if (!switched) assert.include(["source", undefined], error.guest, said)
      else if (event === "failed") assert.include(["parked", "destination"], error.guest, said)
      await endDestination(to)
      const { code } = await to.ended
      assert.include(event === "completed" ? [0] : switched ? [0, 70] : [65, 70], code, said)
      socket.destroy()
    }
    assert.deepEqual(Host.leftIn(dir), [])
  })

  it("of a destination: the source says where its guest is", async () => {
    const dir = Host.directory()
    const module = calm(dir)
    for (let seed = SEED; seed < SEED + INPUTS; seed++) {
      const random = new Random(seed)
      const bytes = mutated(streams.requests(random), random)
      const confirmed = Reference.requests(bytes, blocks, Wire.PAGE).messages.some(({ cmd }) => cmd === 6)
      const from = await Host.source(dir, module)
      const server = createServer(async (socket) => {
        socket.on("error", () => {})
        // Nothing may be said before the switchover, which is the last byte of the framing.
        let seen = Buffer.alloc(0)
        while (Reference.savevm(seen, blocks, Wire.PAGE, 2 ** 20).messages.at(-1)?.kind !== "eof") {
          const [chunk] = await once(socket, "data")
          seen = Buffer.concat([seen, chunk])
        }
        say(socket, bytes)
      })
      const path = join(dir, `peer-${seed}`)
      await new Promise<void>((resolve) => server.listen(path, resolve))
      onTestFinished(() => void server.close())
      const { code, error } = await from.send(`unix:${path}`, { background: random.oneIn(2) })
      const said = `seed ${seed}: ${code} ${error?.message}`
      if (confirmed) assert.strictEqual(code, 0, said)
      else {
        assert.strictEqual(code, 70, said)
        assert.match(error!.message, /the guest (may or may not run|runs) at the destination/)
      }
      assert.isDefined((await from.call({})).error, said)
      assert.strictEqual(await from.quit(), code, said)
      server.close()
    }
  })
})
