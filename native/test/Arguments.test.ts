// Wrong arguments of every function are typed errors.
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, describe, it } from "vitest"
import { P } from "./Kernel.ts"
import { type Any, closeAll, detached, functions, owned, wrong } from "./Surface.ts"
import { thrown } from "./Thrown.ts"

const { Descriptor, FaultPoller, Poller, Region } = Uffd
const { bytes, region, socket, uffd } = owned
afterAll(closeAll)

describe("wrong arguments", () => {
  for (const [name, call, parameters] of functions) {
    it(`of ${name} are typed errors`, () => {
      for (const [index, [kind]] of parameters.entries()) {
        for (const value of wrong[kind]) {
          const args = parameters.map(([, right], i) => i === index ? value : right)
          const error = thrown(() => (call as Any)(...args))
          const what = `${name}: argument ${index} is ${String(typeof value)} and gives ${String(error)}`
          assert.isTrue(error instanceof TypeError || error instanceof RangeError, what)
          assert.include(["ERR_INVALID_ARG_TYPE", "ERR_OUT_OF_RANGE"], error.code, what)
        }
      }
      const optional = ["openOptions", "optionalInteger"]
      if (!optional.includes(parameters[0]![0])) assert.throws(() => (call as Any)(), TypeError)
    })
  }

  it("that reach beyond a buffer or find it detached are range errors", () => {
    for (const [offset, length] of [[0, 65], [64, 1], [65, 0], [1, 2 ** 53 - 1], [2 ** 53 - 1, 1]] as const) {
      assert.throws(() => Uffd.read(socket, bytes, offset, length), RangeError)
      assert.throws(() => Uffd.write(socket, bytes, offset, length), RangeError)
      assert.throws(() => Uffd.copy(uffd, P, bytes, offset, length, 0), RangeError)
      assert.throws(() => region.read(0, bytes, offset, length), RangeError)
      assert.throws(() => region.write(0, bytes, offset, length), RangeError)
    }
    assert.throws(() => Uffd.copy(uffd, P, detached, 0, 1, 0), RangeError)
    assert.throws(() => Uffd.read(socket, detached, 0, 1), RangeError)
    assert.throws(() => Uffd.write(socket, detached, 0, 1), RangeError)
    assert.throws(() => region.read(0, detached, 0, 1), RangeError)
    assert.throws(() => region.write(0, detached, 0, 1), RangeError)
    assert.throws(() => Uffd.receiveDescriptors(socket, detached), RangeError)
    assert.throws(() => Uffd.sendDescriptors(socket, detached, []), RangeError)
  })

  it("include a foreign this and a constructor called by others", () => {
    const fd = Object.getOwnPropertyDescriptor(Descriptor.prototype, "fd")!.get!
    const length = Object.getOwnPropertyDescriptor(Region.prototype, "length")!.get!
    const methods: ReadonlyArray<Any> = [
      fd,
      length,
      Descriptor.prototype.dup,
      Descriptor.prototype.close,
      Descriptor.prototype.release,
      Region.prototype.share as Any,
      Region.prototype.buffer,
      Region.prototype.descriptor,
      Region.prototype.close,
      Poller.prototype.pause,
      Poller.prototype.resume,
      Poller.prototype.ref,
      Poller.prototype.unref,
      Poller.prototype.close,
      FaultPoller.prototype.close
    ]
    for (const method of methods) {
      for (const self of [undefined, null, {}, 1, Object.create(Region.prototype), new Date(), Descriptor]) {
        assert.throws(() => method.call(self), TypeError)
      }
    }
    assert.throws(() => Region.prototype.close.call(socket as unknown as Uffd.Region), TypeError)
    assert.throws(() => Descriptor.prototype.close.call(region as unknown as Uffd.Descriptor), TypeError)
    for (const constructor of [Descriptor, Region, Poller, FaultPoller] as unknown as ReadonlyArray<typeof Poller>) {
      assert.throws(() => new constructor(undefined as unknown as Uffd.Descriptor), TypeError)
      assert.throws(() => (constructor as unknown as Any)(socket), TypeError)
      assert.throws(() => Reflect.construct(constructor, [], Date), TypeError)
    }
  })
})
