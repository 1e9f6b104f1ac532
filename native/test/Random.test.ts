// Nothing that is thrown at the surface ends the process, touches memory that is nobody's region, or acts on a
// descriptor of somebody else: a hundred thousand calls of every function, with arguments right, wrong, closed,
// detached and stale.
import * as fs from "node:fs"
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, describe, it } from "vitest"
import { Dice } from "./Dice.ts"
import { collectGarbage } from "./Garbage.ts"
import { P } from "./Kernel.ts"
import { type Any, closeAll, detached, functions, owned, wrong } from "./Surface.ts"

const { Descriptor, DirtyTracker, FaultPoller, Poller, Region } = Uffd
const { bytes, peer, poller, region, ring, socket, uffd, untouched } = owned
afterAll(closeAll)

const CALLS = 100_000
const SEED = 20240607

interface Closable {
  close(): void
}
const isClosable = (value: unknown): value is Closable =>
  [Descriptor, Region, Poller, FaultPoller, DirtyTracker].some((kind) => value instanceof kind)

/** A machine with other work takes many times what a quiet one does. */
const timeout = 240_000

describe("random arguments", { timeout }, () => {
  it(`leave the process alive in ${CALLS} calls`, async () => {
    // Not thrown at: what ends the process or makes a descriptor block. Numbers that may be adopted or duplicated are
    // tokens and numbers far above those of Node, which a program must not take over.
    const spared = new Set(["exitNow", "execute", "setNonBlocking", "Descriptor.adopt", "Descriptor.duplicate"])
    const surface = functions.filter(([name]) => !spared.has(name))
    const dice = new Dice(SEED)
    const pages = Array.from({ length: 6 }, (_, i) => untouched.address + i * 3 * P)
    const numbers = [0, 1, 2, 3, 4, 5, 8, 64, 100, P, 2 * P, 2 ** 31, 2 ** 32, 2 ** 47, 2 ** 53 - 1, ...pages, ...pages]
    const objects = [socket, peer, region, poller, bytes, ring, detached, [socket, peer], [], uffd, untouched]
    const values = [...Object.values(wrong).flat(), ...numbers, ...objects, true, false, 0n, 1n, new Uint8Array(4 * P)]
    // A path must not become a file here.
    const plain = values.map((value) => typeof value === "string" ? `/nonexistent/${value}` : value)
    const fixed = new Set<unknown>(objects)
    // What earlier calls made: some of it closed meanwhile, all of it an argument of later ones.
    const made: Array<Closable> = []
    const tokens: Array<bigint> = [region.share(), socket.share()]
    const vector = () =>
      Float64Array.from({ length: 12 }, () => dice.below(4) === 0 ? dice.one([NaN, -1, 0.5]) : dice.one(numbers))
    const argument = (): unknown => {
      const kind = dice.below(8)
      if (kind === 0 && made.length > 0) return dice.one(made)
      if (kind === 1) return vector()
      if (kind === 2) return dice.one(tokens)
      return dice.one(plain)
    }
    const keep = (value: unknown): void => {
      if (!isClosable(value) || fixed.has(value)) return
      if (made.length < 48) made.push(value)
      else made.splice(dice.below(made.length), 1, value)[0]!.close()
      if ((value instanceof Descriptor || value instanceof Region) && tokens.length < 200) tokens.push(value.share())
    }
    const call = (): unknown => {
      const what = dice.below(surface.length + 6)
      const some = made.length === 0 ? region : dice.one(made)
      switch (what - surface.length) {
        case 0:
          return some.close()
        case 1:
          return Descriptor.adopt(dice.one<number | bigint>([dice.one(tokens), 5000, 2 ** 31 - 1]) as bigint)
        case 2:
          return Region.adopt(dice.one(tokens))
        case 3:
          return Descriptor.duplicate(dice.one([5000, 2 ** 31 - 1]))
        case 4:
          return some instanceof Descriptor ? some.dup() : some instanceof Region ? some.descriptor() : undefined
        case 5:
          return some instanceof DirtyTracker ? dice.below(2) === 0 ? some.get() : some.getAndReprotect() : undefined
        default: {
          const [, body, parameters] = surface[what]!
          // Half of the arguments are right, so that calls get past the first check.
          return (body as Any)(...parameters.map(([, right]) => dice.below(2) === 0 ? right : argument()))
        }
      }
    }
    let typed = 0
    let answered = 0
    for (let i = 0; i < CALLS; i++) {
      try {
        const result = call()
        answered += 1
        for (const value of Array.isArray(result) ? result : [result]) keep(value)
      } catch (error) {
        assert.isString((error as Uffd.SystemError).code, `call ${i}: ${String(error)}`)
        typed += 1
      }
      if (i % 5000 === 0) await collectGarbage(() => false)
    }
    for (const owner of made) owner.close()
    assert.strictEqual(typed + answered, CALLS)
    assert.isAbove(typed, CALLS / 4)
    assert.isAbove(answered, CALLS / 20)
  })

  it("leave nothing open behind", async () => {
    await collectGarbage(() => false)
    const links = fs.readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        return [fs.readlinkSync(`/proc/self/fd/${fd}`)]
      } catch {
        return []
      }
    })
    // The surface's own: one, and the one that its poller keeps.
    assert.isAtMost(links.filter((link) => link.includes("userfaultfd")).length, 2)
    assert.isAtMost(links.filter((link) => link.endsWith("/pagemap")).length, 1)
    assert.strictEqual(links.filter((link) => link.includes("memfd:")).length, 0)
  })
})
