import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Uffd from "userfaultfd-napi"
import { assert, describe, it } from "vitest"
import { collectGarbage } from "./Garbage.ts"
import { available, open, P, page } from "./Kernel.ts"
import { codeOf, thrown } from "./Thrown.ts"
import { wasmMemory } from "./WasmMemory.ts"

const { constants, Region } = Uffd

const EBADF = -9
const EFAULT = -14
const EINVAL = -22
const ERANGE = -34
const ESTALE = -116

/** Whether a memfd of that name is mapped: the kernel's list of mappings has names, which no other memory takes over. */
const isMapped = (name: string): boolean => fs.readFileSync("/proc/self/maps", "utf8").includes(`memfd:${name}`)

describe("Region", () => {
  it("maps zero-filled anonymous memory", () => {
    const region = Region.anonymous(4 * P)
    assert.strictEqual(region.length, 4 * P)
    assert.strictEqual(region.address % P, 0)
    assert.strictEqual(region.fillByte(0, 4 * P), 0)
    assert.isNull(region.descriptor())
    assert.isFalse(region.closed)
    region.close()
    region.close()
    assert.isTrue(region.closed)
  })

  it("reads, writes and finds the byte that fills a range", () => {
    const region = Region.anonymous(2 * P)
    const bytes = new Uint8Array([1, 2, 3, 4, 5])
    assert.strictEqual(region.write(P - 2, bytes, 1, 4), 4)
    const into = new Uint8Array(8)
    assert.strictEqual(region.read(P - 3, into, 1, 6), 6)
    assert.deepStrictEqual([...into], [0, 0, 2, 3, 4, 5, 0, 0])
    assert.strictEqual(region.fillByte(0, 2 * P), -1)
    assert.strictEqual(region.fillByte(P - 2, 1), 2)
    assert.strictEqual(region.write(0, page(255, 2), 0, 2 * P), 2 * P)
    assert.strictEqual(region.fillByte(0, 2 * P), 255)
    assert.strictEqual(region.read(2 * P, into, 0, 0), 0)
    region.close()
  })

  it("gives ERANGE outside and EBADF once closed", () => {
    const region = Region.anonymous(P)
    const bytes = new Uint8Array(2)
    assert.strictEqual(region.read(P - 1, bytes, 0, 2), ERANGE)
    assert.strictEqual(region.write(P + 1, bytes, 0, 0), ERANGE)
    assert.strictEqual(region.fillByte(Number.MAX_SAFE_INTEGER, 1), ERANGE)
    assert.strictEqual(region.madvise(0, 2 * P, constants.MADV_DONTNEED), ERANGE)
    assert.strictEqual(region.protectNone(P, P), ERANGE)
    region.close()
    assert.strictEqual(region.read(0, bytes, 0, 1), EBADF)
    assert.strictEqual(region.write(0, bytes, 0, 1), EBADF)
    assert.strictEqual(region.fillByte(0, 1), EBADF)
    assert.strictEqual(region.madvise(0, P, constants.MADV_DONTNEED), EBADF)
    assert.strictEqual(region.protectNone(0, P), EBADF)
    assert.strictEqual(codeOf(() => region.share()), "EBADF")
    assert.strictEqual(codeOf(() => region.buffer()), "EBADF")
    assert.strictEqual(codeOf(() => region.descriptor()), "EBADF")
  })

  it("advises whole pages only, and nothing that reaches beyond them", () => {
    const region = Region.anonymous(2 * P)
    region.write(0, page(1, 2), 0, 2 * P)
    assert.strictEqual(region.madvise(0, P, constants.MADV_DONTNEED), 0)
    assert.strictEqual(region.fillByte(0, P), 0)
    assert.strictEqual(region.fillByte(P, P), 1)
    // The kernel would round up to the neighbour.
    assert.strictEqual(region.madvise(0, P + 1, constants.MADV_DONTNEED), EINVAL)
    assert.strictEqual(region.madvise(1, P, constants.MADV_DONTNEED), EINVAL)
    const hardwarePoison = 100
    const guard = 102
    assert.strictEqual(region.madvise(0, P, hardwarePoison), EINVAL)
    assert.strictEqual(region.madvise(0, P, guard), EINVAL)
    for (const advice of [constants.MADV_DONTFORK, constants.MADV_NOHUGEPAGE, constants.MADV_POPULATE_WRITE]) {
      assert.strictEqual(region.madvise(0, 2 * P, advice), 0)
    }
    region.close()
  })

  it("refuses its own accesses to pages that it protected", () => {
    const region = Region.anonymous(3 * P)
    assert.strictEqual(region.protectNone(P, P), 0)
    assert.strictEqual(region.fillByte(0, P), 0)
    assert.strictEqual(region.fillByte(2 * P, P), 0)
    assert.strictEqual(region.fillByte(0, P + 1), EFAULT)
    assert.strictEqual(region.read(2 * P - 1, new Uint8Array(2), 0, 2), EFAULT)
    assert.strictEqual(region.write(P, new Uint8Array(1), 0, 1), EFAULT)
    assert.strictEqual(region.protectNone(0, 1), EINVAL)
    region.close()
  })

  it("shares a memfd between two views and keeps its size", () => {
    const region = Region.memfd("two views", 2 * P)
    const file = region.descriptor()!
    const view = Region.map(file, P, P)
    view.write(0, page(7), 0, P)
    assert.strictEqual(region.fillByte(P, P), 7)
    assert.strictEqual(fs.fstatSync(file.fd).size, 2 * P)
    assert.throws(() => fs.ftruncateSync(file.fd, 0), /EPERM/)
    assert.strictEqual(codeOf(() => Region.map(file, P, 2 * P)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Region.map(file, 1, P)), "ERR_OUT_OF_RANGE")
    region.close()
    assert.strictEqual(view.fillByte(0, P), 7)
    file.close()
    assert.isNotNull(view.descriptor())
    view.close()
  })

  it("maps nothing but files", () => {
    const zero = Uffd.Descriptor.adopt(fs.openSync("/dev/zero", "r+"))
    assert.strictEqual(codeOf(() => Region.map(zero, 0, P)), "ENODEV")
    zero.close()
    const name = path.join(os.tmpdir(), `userfaultfd-napi-${process.pid}`)
    fs.writeFileSync(name, page(3))
    const readOnly = Uffd.Descriptor.adopt(fs.openSync(name, "r"))
    fs.unlinkSync(name)
    assert.strictEqual(codeOf(() => Region.map(readOnly, 0, P)), "EACCES")
    readOnly.close()
  })

  it("maps huge pages, or says that the host has none", () => {
    const huge = 2 * 1024 * 1024
    assert.strictEqual(codeOf(() => Region.memfd("huge", huge + P, { hugetlb: huge })), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Region.memfd("huge", huge, { hugetlb: 3 })), "ERR_OUT_OF_RANGE")
    try {
      Region.memfd("huge", huge, { hugetlb: huge }).close()
    } catch (error) {
      assert.include(["ENOMEM", "ENODEV", "EINVAL"], (error as Uffd.SystemError).code)
    }
  })

  it("gives one ArrayBuffer over the mapping, which holds it", () => {
    const region = Region.memfd("held", P)
    const buffer = region.buffer()
    assert.strictEqual(region.buffer(), buffer)
    assert.strictEqual(buffer.byteLength, P)
    new Uint8Array(buffer)[5] = 6
    assert.strictEqual(region.fillByte(5, 1), 6)
    const token = region.share()
    region.close()
    assert.strictEqual(new Uint8Array(buffer)[5], 6)
    Region.adopt(token).close()
    assert.isTrue(isMapped("held"))
  })

  it("is unmapped when its last holder lets go, and not before", () => {
    const region = Region.memfd("two holders", P)
    const other = Region.adopt(region.share())
    region.close()
    assert.isTrue(isMapped("two holders"))
    other.close()
    assert.isFalse(isMapped("two holders"))
  })

  it("is unmapped when region and buffer are collected", async () => {
    const make = (): bigint => {
      const region = Region.memfd("collected", P)
      region.buffer()
      return region.share()
    }
    const token = make()
    assert.isTrue(isMapped("collected"))
    await collectGarbage(() => !isMapped("collected"))
    assert.isFalse(isMapped("collected"))
    assert.strictEqual(codeOf(() => Region.adopt(token)), "ESTALE")
  })

  it("keeps the ArrayBuffer that it was made of", async () => {
    let collected = false
    const registry = new FinalizationRegistry(() => {
      collected = true
    })
    const make = (): Uffd.Region => {
      const buffer = new ArrayBuffer(4 * P)
      new Uint8Array(buffer).fill(8)
      registry.register(buffer, undefined)
      const region = Region.ofBuffer(buffer)
      assert.isTrue(region.buffer() === buffer)
      return region
    }
    const region = make()
    await collectGarbage(() => collected)
    assert.isFalse(collected)
    assert.strictEqual(region.fillByte(0, 4 * P), 8)
    assert.isNull(region.descriptor())
    region.close()
    await collectGarbage(() => collected)
    assert.isTrue(collected)
  })

  it.skipIf(!available)(
    "keeps a buffer that is registered, for whoever got its memory next would wait for ever",
    async () => {
      let collected = false
      const registry = new FinalizationRegistry(() => {
        collected = true
      })
      const uffd = open()
      const make = (): number => {
        const { buffer } = wasmMemory(1, 1)
        registry.register(buffer, undefined)
        const region = Region.ofBuffer(buffer)
        Uffd.register(uffd, region.address, 8 * P, constants.MODE_MISSING)
        Uffd.unregister(uffd, region.address + 2 * P, 2 * P)
        region.close()
        return region.address
      }
      const address = make()
      await collectGarbage(() => collected)
      assert.isFalse(collected)
      const other = Region.anonymous(P)
      Uffd.unregister(uffd, address, 8 * P)
      // Looked at whenever a region is let go of.
      other.close()
      await collectGarbage(() => collected)
      assert.isTrue(collected)
      uffd.close()
    }
  )

  it("is stale once its ArrayBuffer is detached", () => {
    const buffer = new ArrayBuffer(P)
    const region = Region.ofBuffer(buffer)
    const other = Region.adopt(region.share())
    structuredClone(buffer, { transfer: [buffer] })
    assert.strictEqual(region.fillByte(0, P), ESTALE)
    assert.strictEqual(other.fillByte(0, P), ESTALE)
    assert.strictEqual(codeOf(() => region.buffer()), "ESTALE")
    assert.strictEqual(codeOf(() => Region.ofBuffer(buffer)), "ERR_OUT_OF_RANGE")
    region.close()
    other.close()

    const memory = wasmMemory(1, 2)
    const guest = Region.ofBuffer(memory.buffer)
    memory.grow(1)
    assert.strictEqual(guest.read(0, page(0), 0, P), ESTALE)
    guest.close()
  })

  it("takes no resizable, shared or empty buffer", () => {
    const { code } = thrown(() => Region.ofBuffer(new ArrayBuffer(P, { maxByteLength: 2 * P })))
    assert.strictEqual(code, "ERR_INVALID_ARG_TYPE")
    assert.throws(() => Region.ofBuffer(new SharedArrayBuffer(P) as unknown as ArrayBuffer), TypeError)
    assert.throws(() => Region.ofBuffer(new ArrayBuffer(0)), RangeError)
  })

  it("refuses tokens of nobody, whoever has the slot now", () => {
    const first = Region.anonymous(P)
    const token = first.share()
    first.close()
    const second = Region.anonymous(P)
    assert.notStrictEqual(second.share(), token)
    assert.strictEqual(codeOf(() => Region.adopt(token)), "ESTALE")
    assert.strictEqual(codeOf(() => Region.adopt(0n)), "ESTALE")
    assert.strictEqual(codeOf(() => Region.adopt(2n ** 64n - 1n)), "ESTALE")
    assert.strictEqual(codeOf(() => Region.adopt(2n ** 64n)), "ERR_OUT_OF_RANGE")
    assert.strictEqual(codeOf(() => Region.adopt(-1n)), "ERR_OUT_OF_RANGE")
    second.close()
  })

  it("refuses sizes that the host cannot map", () => {
    assert.strictEqual(codeOf(() => Region.anonymous(2 ** 52)), "ENOMEM")
    assert.strictEqual(codeOf(() => Region.anonymous(P + 1)), "ERR_OUT_OF_RANGE")
  })
})
