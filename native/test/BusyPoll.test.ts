import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { codeOf } from "./Thrown.ts"

const { busyPoll, constants } = Uffd
const { READABLE, WRITABLE } = constants
const CONTENDED = 4

describe("busyPoll", () => {
  it("says which of two descriptors is ready, at once when one is", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    const [c, d] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.strictEqual(busyPoll(a, READABLE, null, 0, 0), 0)
    assert.strictEqual(busyPoll(a, WRITABLE, null, 0, 0), 1)
    Uffd.write(b, Uint8Array.of(1), 0, 1)
    assert.strictEqual(busyPoll(a, READABLE, c, READABLE, 1_000_000), 1)
    assert.strictEqual(busyPoll(c, READABLE, a, READABLE, 1_000_000), 2)
    Uffd.write(d, Uint8Array.of(1), 0, 1)
    assert.strictEqual(busyPoll(a, READABLE, c, READABLE, 1_000_000), 3)
    // An error condition is readiness for whatever is tried next.
    d.close()
    assert.strictEqual(busyPoll(b, 0, c, 0, 0), 2)
    for (const owner of [a, b, c]) owner.close()
  })

  it("gives up after the time, or earlier when others want the CPU", () => {
    const [a, b] = Uffd.socketpair(constants.SOCK_STREAM)
    assert.include([0, CONTENDED], busyPoll(a, READABLE, b, READABLE, 20_000))
    assert.strictEqual(codeOf(() => busyPoll(a, READABLE, null, 0, 10_000_001)), "ERR_OUT_OF_RANGE")
    b.close()
    assert.strictEqual(busyPoll(a, READABLE, b, READABLE, 0), -9)
    a.close()
  })
})
