// Every function with arguments that are right, and for each kind of parameter what it must refuse. The tests of wrong
// and of random arguments both read this.
import * as Uffd from "userfaultfd-napi"
import { available, open, P } from "./Kernel.ts"

export type Any = (...args: ReadonlyArray<unknown>) => unknown

const { constants, Descriptor, FaultPoller, Poller, Region } = Uffd
const [socket, peer] = Uffd.socketpair(constants.SOCK_STREAM)
const region = Region.anonymous(4 * P)
const poller = new Poller(socket)
const uffd = available ? open() : socket
const bytes = new Uint8Array(64)
const ring = new Float64Array(8)
const vector = Float64Array.of(P, 0, P, Uffd.constants.INSTALL_ZERO, 0, 0)
/** Whole pages that nobody touches, so that any call may register, poison or protect them. */
const untouched = Region.anonymous(16 * P)
const pagemap = Uffd.openPagemap()
const faults = available ? new FaultPoller(uffd, new Float64Array(8)) : undefined
export const closeAll = (): void => {
  poller.close()
  faults?.close()
  for (const owner of [socket, peer, uffd, region, untouched, pagemap]) owner.close()
}
export const owned = { socket, peer, region, poller, uffd, untouched, bytes, ring }

export const detached = new Uint8Array(64)
structuredClone(detached.buffer, { transfer: [detached.buffer] })

// What each kind of parameter refuses.
const notObjects: ReadonlyArray<unknown> = [undefined, null, 1, "/nonexistent/x", {}, [], () => {}, Symbol.iterator]
export const wrong = {
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
  memfdOptions: [null, 1, { hugetlb: 3 }, { hugetlb: "2" }, { hugetlb: NaN }, { seal: -1 }, { seal: 2 ** 16 }],
  scanOptions: [null, 1, { required: "1" }, { anyOf: -1 }, { mostPages: NaN }, { reprotect: 1 }, { inverted: 2 ** 53 }],
  descriptorOrNull: [undefined, 1, "/nonexistent/x", {}, [], () => {}, region, Object.create(socket)],
  ranges: [
    undefined,
    null,
    1,
    {},
    [0, 8, 1, 0],
    bytes,
    new Float64Array(3),
    Float64Array.of(-1, 8, 1, 0),
    Float64Array.of(0, 0, 1, 0),
    Float64Array.of(0, 8, NaN, 0)
  ],
  pageSize: [null, "1", NaN, -1, 0, P - 1, P + 1],
  runs: [undefined, null, 1, {}, [1, 2, 3], bytes, new Float32Array(8), new Float64Array(2)],
  region: [...notObjects, socket, Object.create(Region.prototype), Object.create(region)],
  numbers: [undefined, null, 1, {}, ["1"], [-1], [NaN], new DataView(bytes.buffer)],
  numberOrToken: [undefined, null, "1", {}, NaN, -1, 0.5, 2 ** 53, -1n, 2n ** 64n],
  optionalInteger: [null, "1", NaN, -1, 0.5]
} satisfies Record<string, ReadonlyArray<unknown>>

export type Parameter = readonly [kind: keyof typeof wrong, right: unknown]

/** Every function with arguments that are right, and the kind of each. */
export const functions: ReadonlyArray<readonly [name: string, call: unknown, parameters: ReadonlyArray<Parameter>]> = [
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
  ["poison", Uffd.poison, [["descriptor", uffd], ["integer", P], ["integer", P], ["optionalInteger", 0]]],
  ["move", Uffd.move, [["descriptor", uffd], ["integer", P], ["integer", P], ["integer", P], ["integer", 0]]],
  ["writeProtect", Uffd.writeProtect, [["descriptor", uffd], ["integer", P], ["integer", P], ["integer", 0]]],
  ["installPages", Uffd.installPages, [
    ["descriptor", uffd],
    ["doubles", vector],
    ["integer", 0],
    ["integer", 1],
    ["bytes", bytes],
    ["pageSize", P]
  ]],
  ["busyPoll", Uffd.busyPoll, [
    ["descriptor", socket],
    ["integer", 1],
    ["descriptorOrNull", null],
    ["integer", 0],
    ["integer", 0]
  ]],
  ["answerRequests", Uffd.answerRequests, [
    ["descriptor", socket],
    ["region", region],
    ["doubles", Float64Array.from({ length: 12 + 4 * 16 }, (_, i) => [4, P, 0x28, 0x22, 2, 0][i] ?? 0)],
    ["bytes", new Uint8Array(1)],
    ["bytes", new Uint8Array(256)],
    ["bytes", new Uint8Array(P + 8)]
  ]],
  ["fetchPages", Uffd.fetchPages, [
    ["descriptor", uffd],
    ["descriptor", socket],
    [
      "doubles",
      Float64Array.from(
        { length: 17 + 4 * 32 },
        (_, i) => [untouched.address, 4, P, 0x28, 0x22, 2, 0, 0, P + 8, 1][i] ?? 0
      )
    ],
    ["bytes", new Uint8Array(1)],
    ["bytes", new Uint8Array(1)],
    ["bytes", new Uint8Array(2 * P)],
    ["doubles", new Float64Array(64)]
  ]],
  ["sendRanges", Uffd.sendRanges, [
    ["descriptor", socket],
    ["region", region],
    ["ranges", Float64Array.of(0, 8, 1, 0)],
    ["integer", 1],
    ["integer", 0x28],
    ["integer", 0x22],
    ["bytes", bytes]
  ]],
  ["gatherRanges", Uffd.gatherRanges, [
    ["region", region],
    ["ranges", Float64Array.of(0, 8, 1, 0)],
    ["integer", 1],
    ["bytes", bytes],
    ["integer", 0]
  ]],
  ["decodeEvents", Uffd.decodeEvents, [["doubles", ring], ["integer", 1]]],
  ["openPagemap", Uffd.openPagemap, [["optionalInteger", process.pid]]],
  ["scanPages", Uffd.scanPages, [
    ["descriptor", pagemap],
    ["integer", untouched.address],
    ["integer", P],
    ["scanOptions", {}],
    ["runs", ring]
  ]],
  ["new DirtyTracker", (...args: [Uffd.Region]) => new Uffd.DirtyTracker(...args), [["region", region]]],
  ["alignDown", Uffd.alignDown, [["integer", 1], ["pageSize", P]]],
  ["alignUp", Uffd.alignUp, [["integer", 1], ["pageSize", P]]],
  ["pagesCovering", Uffd.pagesCovering, [["integer", 1], ["integer", 1], ["pageSize", P]]],
  ["pagesWithin", Uffd.pagesWithin, [["integer", 1], ["integer", 1], ["pageSize", P]]],
  ["runsOf", Uffd.runsOf, [["numbers", [1, 2]]]],
  ["addSeals", Uffd.addSeals, [["descriptor", socket], ["integer", 0]]],
  ["seals", Uffd.seals, [["descriptor", socket]]],
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
  ["Descriptor.adopt", Descriptor.adopt, [["numberOrToken", 0n]]],
  ["Descriptor.duplicate", Descriptor.duplicate, [["integer", 0]]],
  ["Region.anonymous", Region.anonymous, [["integer", P], ["memfdOptions", {}]]],
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
  ]],
  ["faultPoller.start", faults?.start.bind(faults), [["function", () => {}], ["optionalInteger", 0]]],
  ["faultPoller.serve", faults?.serve.bind(faults), [
    ["integer", 0],
    ["integer", P],
    ["region", region],
    ["integer", 0],
    ["pageSize", P]
  ]],
  ["faultPoller.unserve", faults?.unserve.bind(faults), [["integer", 0], ["integer", 0]]]
]
