/** A guest that waits for a page while its source goes away: it waits on, whatever it was doing. */
import { once } from "node:events"
import { existsSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"
import * as Host from "./Host.ts"
import * as Wire from "./Wire.ts"

const index = fileURLToPath(new URL("../../src/index.ts", import.meta.url))

/** A guest that reads its memory the moment it is given its device state, and leaves a file when it got anything. */
const hasty = (dir: string) => {
  const witness = join(dir, "read")
  const module = join(dir, "hasty.mjs")
  writeFileSync(
    module,
    `import { Guest } from ${JSON.stringify(index)}
import { writeFileSync } from "node:fs"
export default Guest.memory({
  blocks: [{ idstr: "pc.ram", length: 16384 }],
  restore: (ctx) => writeFileSync(${JSON.stringify(witness)}, String(ctx.memory["pc.ram"][4096]))
})
`
  )
  return { module, witness }
}

const switchover = Buffer.concat([
  Wire.header(),
  Wire.start(1, "ram", 4),
  Wire.memSize([{ idstr: "pc.ram", length: 16384 }]),
  Wire.EOS,
  Wire.part(1),
  Wire.EOS,
  Wire.end(1),
  Wire.EOS,
  Wire.full(2, "guest", 1),
  Wire.deviceState(Buffer.from("{}")),
  Wire.EOF
])

describe("a guest that waits for a page in its restore", () => {
  it.each(["is cut", "says nonsense"])("B49: is parked, and is never shown zeros, when its source %s", async (what) => {
    const dir = Host.directory()
    const { module, witness } = hasty(dir)
    const to = await Host.destination(dir, module, `unix:${join(dir, "incoming")}`)
    const socket = connect(join(dir, "incoming")).on("error", () => {})
    await once(socket, "connect")
    socket.write(switchover)
    const requests = Wire.reader(socket)
    assert.strictEqual(await requests.u8(), 0)
    // Its request: the guest's thread waits from now on, before it has run a single step.
    assert.strictEqual(await requests.u8(), 1)
    if (what === "is cut") socket.destroy()
    else socket.end(Wire.be64(0))
    const { error } = await to.event("failed")
    assert.strictEqual(error.guest, "parked")
    assert.strictEqual((await to.status()).state, "failed")
    assert.isDefined((await to.call({})).error)
    assert.strictEqual(await to.quit(), 70)
    assert.isFalse(existsSync(witness), "the guest was shown memory that is not its own")
  })
})
