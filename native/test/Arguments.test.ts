// Wrong arguments of every function are typed errors, and nothing that is thrown at the surface ends the process.
import * as Uffd from "userfaultfd-napi"
import { afterAll, assert, describe, it } from "vitest"
import { collectGarbage } from "./Garbage.ts"
import { available, open, P } from "./Kernel.ts"
import { thrown } from "./Thrown.ts"

type Any = (...args: ReadonlyArray<unknown>) => unknown

const { constants, Descriptor, FaultPoller, Poller, Region } = Uffd
const [socket, peer] = Uffd.socketpair(constants.SOCK_STREAM)
const region = Region.anonymous(4 * P)
const poller = new Poller(socket)
const uffd = available ? open() : socket
const bytes = new Uint8Array(64)
const ring = new Float64Array(8)
afterAll(() => {
  poller.close()
  for (const owner of [socket, peer, uffd, region]) owner.close()
})

const detached = new Uint8Array(64)
structuredClone(detached.buffer, { transfer: [detached.buffer] })

// What each kind of parameter refuses.
const notObjects: ReadonlyArray<unknown> = [undefined, null, 1, "x", {}, [], () => {}, Symbol.iterator]
const wrong = {
  descriptor: [
    ...notObjects,
    region,
    Object.create(Descriptor.prototype),
    Object.create(socket),
    new Proxy(socket, {})
  ],
  integer: [undefined, null, "1", {}, 1n, NaN, Infinity, -1, 0.5, 2 ** 53, -(2 ** 60)],
  bytes: [
    undefined,
    null,
    1,
    "x",
    {},
    [1, 2],
    new ArrayBuffer(64),
    new Uint8ClampedArray(64),
    new DataView(bytes.buffer)
  ],
  doubles: [undefined, null, 1, {}, [1, 2, 3, 4], bytes, new Float32Array(8), new Float64Array(3)],
  string: [undefined, null, 1, {}, Symbol.iterator, "a\0b"],
  function: [undefined, null, 1, "x", {}],
  bigint: [undefined, null, 1, "1", -1n, 2n ** 64n],
  buffer: [undefined, null, 1, {}, bytes, new ArrayBuffer(0)],
  boolean: [undefined, null, 1, "true", {}],
  descriptors: [undefined, null, {}, "x", [undefined], [socket, {}], [region], new Proxy([], {})],
  strings: [undefined, null, {}, "x", [1], ["a\0b"]],
  record: [undefined, null, 1, "x", { NAME: 1 }, { NAME: "a\0b" }],
  integers: [undefined, null, {}, ["1"], [-1], [NaN]],
  openOptions: [null, 1, "x", { required: "1" }, { optional: -1 }, { userModeOnly: 1 }, { via: "other" }, { via: 1 }],
  socketOptions: [undefined, null, 1, "x", { noDelay: 1 }, { sendBuffer: -1 }, { receiveBuffer: 2 ** 31 }],
  memfdOptions: [null, 1, { hugetlb: 3 }, { hugetlb: "2" }, { hugetlb: NaN }],
  optionalInteger: [null, "1", NaN, -1, 0.5]
} satisfies Record<string, ReadonlyArray<unknown>>

type Parameter = readonly [kind: keyof typeof wrong, right: unknown]

/** Every function with arguments that are right, and the kind of each. */
const functions: ReadonlyArray<readonly [name: string, call: unknown, parameters: ReadonlyArray<Parameter>]> = [
  ["errnoName", Uffd.errnoName, [["integer", 1]]],
  ["open", Uffd.open, [["openOptions", {}]]],
  ["register", Uffd.register, [["descriptor", uffd], ["integer", P], ["integer", P], ["integer", 1]]],
  ["unregister", Uffd.unregister, [["descriptor", uffd], ["integer", P], ["integer", P]]],
  ["copy", Uffd.copy, [
    ["descriptor", uffd],
    ["integer", P],
    ["bytes", bytes],
    ["integer", 0],
    ["integer", 1],
    ["integer", 0]
  ]],
  ["zeropage", Uffd.zeropage, [["descriptor", uffd], ["integer", P], ["integer", P], ["integer", 0]]],
  ["continueRange", Uffd.continueRange, [["descriptor", uffd], ["integer", P], ["integer", P], ["integer", 0]]],
  ["wake", Uffd.wake, [["descriptor", uffd], ["integer", P], ["integer", P]]],
  ["poison", Uffd.poison, [["descriptor", uffd], ["integer", P], ["integer", P]]],
  ["readEvents", Uffd.readEvents, [["descriptor", uffd], ["doubles", ring]]],
  ["read", Uffd.read, [["descriptor", socket], ["bytes", bytes], ["integer", 0], ["integer", 1]]],
  ["write", Uffd.write, [["descriptor", socket], ["bytes", bytes], ["integer", 0], ["integer", 1]]],
  ["socketpair", Uffd.socketpair, [["integer", 1]]],
  ["sendDescriptors", Uffd.sendDescriptors, [["descriptor", socket], ["bytes", bytes], ["descriptors", []]]],
  ["receiveDescriptors", Uffd.receiveDescriptors, [["descriptor", socket], ["bytes", bytes], ["optionalInteger", 1]]],
  ["connectTcp", Uffd.connectTcp, [["string", "127.0.0.1"], ["integer", 9]]],
  ["listenTcp", Uffd.listenTcp, [["string", "127.0.0.1"], ["integer", 0], ["integer", 1]]],
  ["connectUnix", Uffd.connectUnix, [["string", "/nonexistent"]]],
  ["listenUnix", Uffd.listenUnix, [["string", "/nonexistent/s"], ["integer", 1], ["optionalInteger", 0o600]]],
  ["probeUnix", Uffd.probeUnix, [["string", "/nonexistent"]]],
  ["accept", Uffd.accept, [["descriptor", socket]]],
  ["socketError", Uffd.socketError, [["descriptor", socket]]],
  ["localAddress", Uffd.localAddress, [["descriptor", socket]]],
  ["unsentBytes", Uffd.unsentBytes, [["descriptor", socket]]],
  ["shutdown", Uffd.shutdown, [["descriptor", socket], ["integer", 0]]],
  ["setNonBlocking", Uffd.setNonBlocking, [["descriptor", socket], ["boolean", true]]],
  ["setSocketOptions", Uffd.setSocketOptions, [["descriptor", socket], ["socketOptions", {}]]],
  ["describe", Uffd.describe, [["descriptor", socket]]],
  ["peerCredentials", Uffd.peerCredentials, [["descriptor", socket]]],
  ["exitNow", Uffd.exitNow, [["integer", 0]]],
  ["execute", Uffd.execute, [["string", "/nonexistent"], ["strings", []], ["record", {}], ["integers", []]]],
  ["Descriptor.adopt", Descriptor.adopt, [["integer", 0]]],
  ["Descriptor.duplicate", Descriptor.duplicate, [["integer", 0]]],
  ["Region.anonymous", Region.anonymous, [["integer", P]]],
  ["Region.memfd", Region.memfd, [["string", "x"], ["integer", P], ["memfdOptions", {}]]],
  ["Region.map", Region.map, [["descriptor", socket], ["integer", 0], ["integer", P]]],
  ["Region.ofBuffer", Region.ofBuffer, [["buffer", new ArrayBuffer(1)]]],
  ["Region.adopt", Region.adopt, [["bigint", 0n]]],
  ["region.read", region.read.bind(region), [["integer", 0], ["bytes", bytes], ["integer", 0], ["integer", 1]]],
  ["region.write", region.write.bind(region), [["integer", 0], ["bytes", bytes], ["integer", 0], ["integer", 1]]],
  ["region.fillByte", region.fillByte.bind(region), [["integer", 0], ["integer", 1]]],
  ["region.madvise", region.madvise.bind(region), [["integer", 0], ["integer", 0], ["integer", 0]]],
  ["region.protectNone", region.protectNone.bind(region), [["integer", 0], ["integer", 0]]],
  ["new Poller", (...args: [Uffd.Descriptor]) => new Poller(...args), [["descriptor", socket]]],
  ["poller.watch", poller.watch.bind(poller), [["integer", 0], ["function", () => {}]]],
  ["new FaultPoller", (...args: [Uffd.Descriptor, Float64Array]) => new FaultPoller(...args), [
    ["descriptor", uffd],
    ["doubles", ring]
  ]]
]

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
      if (parameters[0]![0] !== "openOptions") assert.throws(() => (call as Any)(), TypeError)
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

describe("random arguments", () => {
  it("leave the process alive in 20,000 calls", async () => {
    // Not thrown at: what ends the process, takes over numbers of Node's own, or makes a descriptor block.
    const spared = new Set(["exitNow", "execute", "Descriptor.adopt", "setNonBlocking"])
    const surface = functions.filter(([name]) => !spared.has(name))
    // A multiplicative generator with a fixed seed: a failure can be repeated.
    let state = 20240607
    const below = (limit: number): number => {
      state = state * 48271 % 2147483647
      return state % limit
    }
    const numbers = [0, 1, 2, 3, 4, 5, 8, 64, 100, P, 2 * P, 2 ** 31, 2 ** 32, 2 ** 47, 2 ** 53 - 1]
    const objects = [socket, peer, region, poller, bytes, ring, detached, [socket, peer], []]
    const pool = [...Object.values(wrong).flat(), ...numbers, ...objects, true, false, 0n, 1n, region.share()]
    let typed = 0
    for (let i = 0; i < 20_000; i++) {
      const [, call, parameters] = surface[below(surface.length)]!
      // Half of the arguments are right, so that calls get past the first check.
      const args = parameters.map(([, right]) => below(2) === 0 ? right : pool[below(pool.length)])
      try {
        const result = (call as Any)(...args)
        if (result instanceof Poller || result instanceof FaultPoller) result.close()
      } catch (error) {
        assert.isString((error as Uffd.SystemError).code, String(error))
        typed += 1
      }
      if (i % 1000 === 0) await collectGarbage(() => false)
    }
    assert.isAbove(typed, 5000)
  })
})
