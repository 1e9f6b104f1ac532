import { assert, describe, it } from "@effect/vitest"
import * as Xbzrle from "../../../src/protocol/qemu/Xbzrle.ts"
import { hex, random } from "../Streams.ts"

const PAGE = 4096

/** The shortest delta is not the point: any valid one. */
const encode = (from: Uint8Array, to: Uint8Array): Uint8Array => {
  const out: Array<number> = []
  const put = (n: number) => n < 128 ? out.push(n) : out.push((n & 127) | 128, n >> 7)
  let at = 0
  while (at < PAGE) {
    let skip = 0
    while (at + skip < PAGE && from[at + skip] === to[at + skip]) skip++
    if (at + skip === PAGE) break
    let count = 0
    while (at + skip + count < PAGE && from[at + skip + count] !== to[at + skip + count]) count++
    put(skip)
    put(count)
    out.push(...to.subarray(at + skip, at + skip + count))
    at += skip + count
  }
  return Uint8Array.from(out)
}

describe("XBZRLE", () => {
  it("a captured delta changes four bytes", () => {
    const page = new Uint8Array(PAGE).fill(9)
    assert.isUndefined(Xbzrle.apply(page, hex("84 02 02 0e 14 02 02 b7 04")))
    const expected = new Uint8Array(PAGE).fill(9)
    expected.set([0x0e, 0x14], 260)
    expected.set([0xb7, 0x04], 264)
    assert.deepStrictEqual(page, expected)
  })
  it("any change of a page comes out as it was", () => {
    const next = random(3)
    for (let round = 0; round < 50; round++) {
      const from = Uint8Array.from({ length: PAGE }, () => next() * 4)
      const to = from.map((byte) => next() < round / 50 ? next() * 4 : byte)
      const page = from.slice()
      assert.isUndefined(Xbzrle.apply(page, encode(from, to)))
      assert.deepStrictEqual(page, to)
    }
  })
  for (
    const [what, delta, message] of [
      ["bytes behind the page", "ff 1f 02 01 01", /leaves the page/],
      ["a skip of nothing in the middle", "00 01 07 00 01 07", /unchanged bytes at 3/],
      ["a store of nothing", "01 00", /changed bytes at 1/],
      ["a number of three bytes", "80 80 01", /unchanged bytes at 0/],
      ["an end inside a number", "80", /unchanged bytes at 0/],
      ["an end inside the bytes", "01 03 07", /ends inside/],
      ["an end behind a skip", "01", /changed bytes at 1/]
    ] as const
  ) {
    it(`refuses ${what}`, () => {
      assert.match(Xbzrle.apply(new Uint8Array(PAGE), hex(delta)) ?? "nothing", message)
    })
  }
})
