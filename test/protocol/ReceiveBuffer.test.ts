import { assert, describe, it } from "@effect/vitest"
import { ReceiveBuffer } from "../../src/protocol/ReceiveBuffer.ts"
import { random } from "./Streams.ts"

describe("receive buffer", () => {
  it("gives back what was pushed, in order, whatever was consumed in between", () => {
    const next = random(1)
    const buffer = new ReceiveBuffer(100, 64)
    let pushed = 0
    let taken = 0
    for (let i = 0; i < 3000; i++) {
      const chunk = Uint8Array.from({ length: Math.floor(next() * 90) }, () => pushed++ % 251)
      buffer.push(chunk)
      const eat = Math.floor(next() * (buffer.available + 1))
      for (let at = 0; at < eat; at++) assert.strictEqual(buffer.u8(at), (taken + at) % 251)
      buffer.consume(eat)
      taken += eat
      assert.strictEqual(buffer.offset, 100 + taken)
      assert.strictEqual(buffer.available, pushed - taken)
    }
  })
  it("moves fewer bytes than it takes in, and stays small, while chunks end inside records", () => {
    const record = 4104
    const chunk = new Uint8Array(64 * 1024)
    const buffer = new ReceiveBuffer(0, 128 * 1024)
    let moved = 0
    let grown = 0
    for (let i = 0; i < 500; i++) {
      const { bytes, start } = buffer
      buffer.push(chunk)
      if (buffer.bytes !== bytes) grown++
      else if (start > 0 && buffer.start === 0) moved += buffer.end - chunk.length
      while (buffer.available >= record) buffer.consume(record)
    }
    assert.strictEqual(grown, 0)
    assert.isBelow(moved, 500 * record)
  })
  it("moves few bytes, and grows once, while a large remainder goes on little by little", () => {
    const buffer = new ReceiveBuffer(0, 1000)
    buffer.push(new Uint8Array(900))
    let moved = 0
    for (let i = 0; i < 10_000; i++) {
      buffer.consume(1)
      const { start } = buffer
      buffer.push(new Uint8Array(1))
      if (buffer.start < start) moved += buffer.available
    }
    assert.isBelow(moved, 10_000)
    assert.strictEqual(buffer.bytes.length, 2000)
  })
  it("grows only by what arrived", () => {
    const buffer = new ReceiveBuffer(0, 16)
    for (let i = 0; i < 100; i++) buffer.push(new Uint8Array(1000))
    assert.isAtMost(buffer.bytes.length, 2 * 100_000 + 1000)
  })
  it("reads be64 as a number up to 2^53 and exactly beyond", () => {
    const buffer = new ReceiveBuffer(0, 64)
    buffer.push(Uint8Array.of(0, 0x1f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254))
    assert.strictEqual(buffer.be64(0), Number.MAX_SAFE_INTEGER)
    assert.strictEqual(buffer.be64Exact(8), 2n ** 64n - 2n)
    assert.isAbove(buffer.be64(8), Number.MAX_SAFE_INTEGER)
  })
  it("a chunk read straight into it is one that was pushed", () => {
    const buffer = new ReceiveBuffer(0, 4)
    buffer.push(Uint8Array.of(1, 2, 3))
    buffer.consume(1)
    buffer.reserve(10)
    buffer.bytes.set([4, 5], buffer.end)
    buffer.commit(2)
    assert.deepStrictEqual(buffer.take(), Uint8Array.of(2, 3, 4, 5))
    assert.strictEqual(buffer.available, 0)
  })
})
