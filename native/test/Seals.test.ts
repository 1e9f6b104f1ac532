import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { P, page } from "./Kernel.ts"
import { codeOf } from "./Thrown.ts"

const { constants, Region } = Uffd
const { SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE } = constants

describe("seals", () => {
  it("of a memfd keep its size, and more when asked", () => {
    const plain = Region.memfd("plain", P)
    const file = plain.descriptor()!
    assert.strictEqual(Uffd.seals(file), SEAL_SHRINK + SEAL_GROW)
    Uffd.addSeals(file, SEAL_SEAL)
    assert.strictEqual(Uffd.seals(file), SEAL_SHRINK + SEAL_GROW + SEAL_SEAL)
    assert.strictEqual(codeOf(() => Uffd.addSeals(file, SEAL_FUTURE_WRITE)), "EPERM")
    file.close()
    plain.close()
  })

  it("against further writers leave the region's own mapping as it is", () => {
    const region = Region.memfd("read only for others", P, { seal: SEAL_FUTURE_WRITE + SEAL_SEAL })
    const file = region.descriptor()!
    assert.strictEqual(region.write(0, page(3), 0, P), P)
    assert.throws(() => fs.writeSync(file.fd, page(1)), /EPERM/)
    assert.strictEqual(codeOf(() => Region.map(file, 0, P)), "EPERM")
    const read = Buffer.alloc(P)
    assert.strictEqual(fs.readSync(file.fd, read, 0, P, 0), P)
    assert.strictEqual(read[7], 3)
    file.close()
    region.close()
  })

  it("that cannot be are refused, with nothing left behind", () => {
    const before = fs.readdirSync("/proc/self/fd").length
    assert.strictEqual(codeOf(() => Region.memfd("written", P, { seal: SEAL_WRITE })), "EBUSY")
    assert.strictEqual(codeOf(() => Region.memfd("unknown", P, { seal: 0x8000 })), "EINVAL")
    assert.strictEqual(codeOf(() => Region.memfd("wrong", P, { seal: -1 })), "ERR_OUT_OF_RANGE")
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.strictEqual(codeOf(() => Uffd.seals(a)), "EINVAL")
    assert.strictEqual(codeOf(() => Uffd.addSeals(a, SEAL_SEAL)), "EINVAL")
    a.close()
    b.close()
    assert.strictEqual(codeOf(() => Uffd.seals(a)), "EBADF")
    assert.strictEqual(fs.readdirSync("/proc/self/fd").length, before)
  })
})
