/**
 * The two halves of an exchange of pages: the addon's and their reference do the same with the same plan, over real sockets,
 * real memory and a real userfaultfd; and both leave what they cannot do as it came.
 */
import * as Uffd from "userfaultfd-napi"
import { afterEach, assert, describe, it } from "vitest"
import { Toucher } from "../../native/test/Toucher.ts"
import * as Binding from "../../src/native/Binding.ts"
import { answerOver, sendOver } from "../../src/services/AnswerReference.ts"
import { fetchOver } from "../../src/services/FetchReference.ts"
import { RANGE_WORDS, type SourceBlock } from "../../src/services/GuestMemory.ts"
import type { Link } from "../../src/services/Link.ts"
import * as NativeLink from "../../src/services/NativeLink.ts"
import { Answer, Fetch, LOG_WORDS, Logged } from "../../src/services/PageExchange.ts"
import { type FaultChannel, serve } from "../../src/services/Userfaultfd.ts"

const P = 4096
const PAGES = 32
const PAGE_FLAGS = 0x28
const FILL_FLAGS = 0x22
const COMMAND = 2
const EPIPE = -32
const addon = Binding.require()
const { constants, Region } = addon

const closing: Array<() => unknown> = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const pair = (): readonly [Link, Link] => {
  const [a, b] = addon.socketpair(constants.SOCK_STREAM)
  const links = [a, b].map((end) => NativeLink.fromDescriptor(addon, end, "the other end")) as [Link, Link]
  closing.push(() => links.forEach((link) => link.close()))
  return links
}

const request = (pages: ReadonlyArray<number>, command = COMMAND, count = pages.length): Uint8Array => {
  const view = new DataView(new ArrayBuffer(5 + 8 * pages.length))
  view.setUint8(0, command)
  view.setUint32(1, count)
  for (const [i, page] of pages.entries()) view.setBigUint64(5 + 8 * i, BigInt(page))
  return new Uint8Array(view.buffer)
}

const record = (page: number, flags: number, data: Uint8Array): Uint8Array => {
  const out = new Uint8Array(8 + data.length)
  new DataView(out.buffer).setBigUint64(0, BigInt(page * P + flags))
  out.set(data, 8)
  return out
}

const concat = (...parts: ReadonlyArray<Uint8Array>) => Uint8Array.from(parts.flatMap((part) => Array.from(part)))

/** Page 0 is zeros, page 3 is of one byte, the others have different bytes. */
const contentOf = (page: number): Uint8Array =>
  page % 8 === 3
    ? new Uint8Array(P).fill(page)
    : page === 0
    ? new Uint8Array(P)
    : Uint8Array.from({ length: P }, (_, i) => i ^ page)
const recordOf = (page: number): Uint8Array => {
  const bytes = contentOf(page)
  return page % 8 === 3 || page === 0
    ? record(page, FILL_FLAGS, bytes.subarray(0, 1))
    : record(page, PAGE_FLAGS, bytes)
}

/** All that can be read now. */
const readAll = (link: Link): Uint8Array => {
  const parts: Array<Uint8Array> = []
  const chunk = new Uint8Array(65536)
  for (let n = link.read(chunk, 0, chunk.length); n > 0; n = link.read(chunk, 0, chunk.length)) {
    parts.push(chunk.slice(0, n))
  }
  return concat(...parts)
}
const write = (link: Link, bytes: Uint8Array) => assert.strictEqual(link.write(bytes, 0, bytes.length), bytes.length)

/** How many pages each entry of a source's log stands for, if it was pushed. */
const pagesOf = (count: number, plan: Float64Array) => entries(plan, Answer.words, count, [3]).map(([pages]) => pages!)

const entries = (plan: Float64Array, words: number, count: number, fields: ReadonlyArray<number>) =>
  Array.from({ length: count }, (_, i) => fields.map((field) => plan[words + i * LOG_WORDS + field]!))

for (const which of ["native", "native, asleep", "reference"] as const) {
  /** One look; or as many as find something, with sleeps between. */
  const patience = which === "native, asleep" ? -20_000 : 0
  describe(`answering requests: ${which}`, () => {
    const rig = (most = 64) => {
      const region = Region.anonymous(PAGES * P)
      closing.push(() => region.close())
      for (let page = 0; page < PAGES; page++) region.write(page * P, contentOf(page), 0, P)
      const [link, far] = pair()
      const gather: NonNullable<SourceBlock["gather"]> = (ranges, count, into, at) =>
        addon.gatherRanges(region, ranges, count, into, at)
      const answer: NonNullable<SourceBlock["answer"]> = which === "reference"
        ? answerOver(gather)
        : (link, ...given) => addon.answerRequests(link.descriptor!, region, ...given)
      const plan = new Float64Array(Answer.words + most * LOG_WORDS)
      plan.set([PAGES, P, PAGE_FLAGS, FILL_FLAGS, COMMAND, patience, PAGES, 1])
      const dirty = new Uint8Array(PAGES / 8 + 4).fill(0xff)
      const input = new Uint8Array(4096)
      const output = new Uint8Array(64 * 1024 + 128)
      return {
        link,
        far,
        plan,
        dirty,
        input,
        output,
        /** Until nothing more comes: one look each. */
        run: () => answer(link, plan, dirty, input, output),
        log: (count: number) => entries(plan, Answer.words, count, [0, 1, 2])
      }
    }

    it("answers what is simple, pages in the order asked, and changes no bit", () => {
      const { dirty, far, log, plan, run } = rig()
      write(far, concat(request([5, 3, 5]), request([0])))
      assert.strictEqual(run(), 3)
      assert.deepStrictEqual(readAll(far), concat(recordOf(5), recordOf(3), recordOf(0)))
      assert.deepStrictEqual(log(3), [[5, -1, 8 + P], [3, 3, 9], [0, 0, 9]])
      assert.deepStrictEqual([plan[Answer.bytesIn], plan[Answer.unhandled], plan[Answer.pendingEnd]], [29 + 13, 0, 0])
      assert.isTrue(dirty.every((byte) => byte === 0xff))
    })

    const cases: ReadonlyArray<readonly [what: string, bytes: Uint8Array, clean?: number]> = [
      ["leaves another command", request([5], 1)],
      ["B04: leaves a command that there is not", request([5], 7)],
      ["leaves no page", request([])],
      ["B05: leaves more pages than at once", request(Array.from({ length: 17 }, (_, i) => i))],
      ["B05: leaves more than that of one page", request(Array.from({ length: 17 }, () => 1))],
      ["B05: leaves a count of which the pages cannot come", request([1], COMMAND, 0xffffffff)],
      ["leaves a page that is not dirty", request([1, 6]), 6],
      ["B11: leaves a page beyond the block", request([PAGES])],
      ["B11: leaves a page far beyond it", request([2 ** 53])],
      ["B11: leaves a page whose byte offset would wrap", request([2 ** 52])],
      ["leaves one that begins and is not all there", request([5, 6]).subarray(0, 20)]
    ]
    for (const [what, bytes, clean] of cases) {
      it(`${what} as it came, behind what was answered before it`, () => {
        const { dirty, far, input, log, plan, run } = rig()
        if (clean !== undefined) dirty[clean >> 3]! &= ~(1 << (clean & 7))
        write(far, concat(request([9]), bytes))
        assert.strictEqual(run(), 1)
        assert.deepStrictEqual(log(1), [[9, -1, 8 + P]])
        assert.deepStrictEqual(readAll(far), recordOf(9))
        assert.deepStrictEqual(input.slice(0, plan[Answer.unhandled]), bytes.slice())
      })
    }

    it("leaves a page that it has answered itself: the caller has not heard of it yet", () => {
      const { far, input, plan, run } = rig()
      write(far, concat(request([9]), request([9])))
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual(input.slice(0, plan[Answer.unhandled]), request([9]))
    })

    it("stops with what the link has not taken, and the stream goes on with that", () => {
      const { far, link, log, output, plan, run } = rig()
      const asked = Array.from({ length: 14 }, (_, i) => i + 1)
      let sent = 0
      const stream: Array<Uint8Array> = []
      const expected: Array<Uint8Array> = []
      for (let round = 0; round < 20 && plan[Answer.pendingEnd] === 0; round++) {
        write(far, request(asked))
        const n = run()
        if (n > 0) expected.push(...asked.map(recordOf))
        sent += n
      }
      assert.isAbove(sent, 0)
      // Either the answer that did not fit was begun, or it was not, and its request is left.
      if (plan[Answer.pendingEnd]! > 0) {
        const rest = output.slice(plan[Answer.pendingAt]!, plan[Answer.pendingEnd]!)
        stream.push(readAll(far))
        assert.strictEqual(link.write(rest, 0, rest.length), rest.length)
        assert.deepStrictEqual(log(1), [[1, -1, 8 + P]])
      }
      stream.push(readAll(far))
      assert.deepStrictEqual(concat(...stream), concat(...expected))
    })

    it("pushes what is dirty from the cursor on, neighbours as one entry, until nothing is left", () => {
      const { dirty, far, log, plan, run } = rig()
      plan[Answer.cursor] = 20
      for (const page of [22, 23]) dirty[page >> 3]! &= ~(1 << (page & 7))
      assert.strictEqual(run(), 3)
      // A chunk ends with the page that makes it 32 KiB.
      assert.deepStrictEqual(log(3), [[20, 0, 2 * (8 + P)], [24, 1, 6 * (8 + P) + 9], [31, 0, 8 + P]])
      assert.deepStrictEqual(pagesOf(3, plan), [2, 7, 1])
      const pages = [20, 21, 24, 25, 26, 27, 28, 29, 30, 31]
      assert.deepStrictEqual(readAll(far), concat(...pages.map(recordOf)))
      assert.deepStrictEqual([plan[Answer.cursor], plan[Answer.full], plan[Answer.pendingEnd]], [PAGES, 0, 0])
    })

    it("answers before it pushes, and goes on behind the page that was asked for", () => {
      const { far, log, plan, run } = rig()
      plan[Answer.cursor] = 4
      write(far, request([29]))
      assert.strictEqual(run(), 2)
      assert.deepStrictEqual(log(2), [[29, -1, 8 + P], [30, 0, 2 * (8 + P)]])
      assert.deepStrictEqual(readAll(far), concat(recordOf(29), recordOf(30), recordOf(31)))
    })

    it("pushes and leaves all requests where it may not answer", () => {
      const { far, input, log, plan, run } = rig()
      plan[Answer.cursor] = 30
      plan[Answer.answers] = 0
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual(log(1), [[30, 0, 2 * (8 + P)]])
      write(far, request([5]))
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual(input.slice(0, plan[Answer.unhandled]), request([5]))
    })

    it("leaves a request of a page that it has pushed itself", () => {
      const { far, input, plan, run } = rig()
      plan[Answer.cursor] = 31
      write(far, concat(request([30]), request([31]), request([30])))
      assert.strictEqual(run(), 2)
      assert.deepStrictEqual(input.slice(0, plan[Answer.unhandled]), request([30]))
    })

    it("pushes nothing while the peer has more to read than it is to have", () => {
      const { far, plan, run } = rig()
      plan[Answer.cursor] = 0
      plan[Answer.unread] = 30_000
      // The first chunk goes beyond it.
      assert.isAbove(run(), 0)
      const cursor = plan[Answer.cursor]!
      assert.isBelow(cursor, PAGES)
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual([plan[Answer.cursor], plan[Answer.full], plan[Answer.pendingEnd]], [cursor, 0, 0])
      readAll(far)
      assert.isAbove(run(), 0)
      assert.isAbove(plan[Answer.cursor]!, cursor)
    })

    it("pushes more at once where the guest follows the cursor", () => {
      const { far, log, plan, run } = rig()
      plan[Answer.unread] = 5 * P
      const pushed = (asked: number) => {
        plan[Answer.cursor] = 8
        write(far, request([asked]))
        const n = run()
        readAll(far)
        return log(n).slice(1).map(([first], i) => [first, pagesOf(n, plan)[i + 1]])
      }
      assert.deepStrictEqual(pushed(25)[0], [26, 6])
      assert.deepStrictEqual(pushed(9)[0], [10, 9])
      assert.deepStrictEqual(pushed(7)[0], [8, 6])
    })

    it("says when the link is full, and has logged what the link or the caller has", () => {
      const { dirty, far, link, log, output, plan, run } = rig()
      const expected: Array<Uint8Array> = []
      let full = false
      for (let round = 0; round < 100 && !full && plan[Answer.pendingEnd] === 0; round++) {
        plan[Answer.cursor] = 8
        const n = run()
        full = plan[Answer.full] === 1
        for (const [i, [first]] of log(n).entries()) {
          for (let page = first!; page < first! + pagesOf(n, plan)[i]!; page++) expected.push(recordOf(page))
        }
        assert.isTrue(dirty.every((byte) => byte === 0xff))
      }
      const stream = [readAll(far)]
      const rest = output.slice(plan[Answer.pendingAt]!, plan[Answer.pendingEnd]!)
      assert.isTrue(full || rest.length > 0)
      if (rest.length > 0) assert.strictEqual(link.write(rest, 0, rest.length), rest.length)
      stream.push(readAll(far))
      assert.deepStrictEqual(concat(...stream), concat(...expected))
    })

    it("answers no more than it can log, and finds nothing at the end of the stream", () => {
      const { far, plan, run } = rig(20)
      write(far, concat(request([1]), request([2]), request([4]), request([5]), request([6]), request([7])))
      assert.strictEqual(run(), 5)
      far.close()
      assert.isAbove(plan[Answer.unhandled]!, 0)
      assert.strictEqual(run(), 0)
      assert.strictEqual(plan[Answer.unhandled], 0)
    })
  })

  describe(`sending ranges: ${which}`, () => {
    const rig = () => {
      const region = Region.anonymous(PAGES * P)
      closing.push(() => region.close())
      for (let page = 0; page < PAGES; page++) region.write(page * P, contentOf(page), 0, P)
      const [link, far] = pair()
      const send: NonNullable<SourceBlock["send"]> = which === "reference"
        ? sendOver((ranges, count, into, at) => addon.gatherRanges(region, ranges, count, into, at))
        : (link, ...given) => addon.sendRanges(link.descriptor!, region, ...given)
      const run = (pages: ReadonlyArray<number>, rest: Uint8Array, length = P, fillFlags = FILL_FLAGS) => {
        const ranges = new Float64Array(pages.length * RANGE_WORDS)
        for (const [i, page] of pages.entries()) ranges.set([page * P, length], i * RANGE_WORDS)
        const left = send(link, ranges, pages.length, PAGE_FLAGS, fillFlags, rest)
        return { left, fills: pages.map((_, i) => ranges[i * RANGE_WORDS + 3]!) }
      }
      return { far, link, region, run }
    }

    it("sends pages from where they lie, those of one byte as that", () => {
      const { far, run } = rig()
      assert.deepStrictEqual(run([5, 3, 6, 0], new Uint8Array(5 * P)), { left: 0, fills: [-1, 3, -1, 0] })
      assert.deepStrictEqual(readAll(far), concat(recordOf(5), recordOf(3), recordOf(6), recordOf(0)))
    })

    it("sends pages of one byte whole where no flags say otherwise", () => {
      const { far, run } = rig()
      const whole = (page: number) => {
        const record = new Uint8Array(8 + P)
        new DataView(record.buffer).setBigUint64(0, BigInt(page * P) | BigInt(PAGE_FLAGS))
        record.set(contentOf(page), 8)
        return record
      }
      assert.deepStrictEqual(run([3, 5, 0], new Uint8Array(4 * P), P, 0), { left: 0, fills: [-1, -1, -1] })
      assert.deepStrictEqual(readAll(far), concat(whole(3), whole(5), whole(0)))
    })

    it("gives back what the link does not take, at any byte, so that the stream goes on", () => {
      const { far, link, run } = rig()
      const rest = new Uint8Array(16 * (P + 8))
      const pages = Array.from({ length: 15 }, (_, i) => i + 1)
      const stream: Array<Uint8Array> = []
      let expected = 0
      let left = 0
      while (left === 0) {
        left = run(pages, rest).left
        expected++
      }
      assert.isAbove(left, 0)
      // Full: nothing is taken, all is given back.
      const all = new Uint8Array(16 * (P + 8))
      assert.strictEqual(run([9], all).left, P + 8)
      assert.deepStrictEqual(all.slice(0, P + 8), recordOf(9))
      stream.push(readAll(far))
      write(link, rest.subarray(0, left))
      stream.push(readAll(far))
      assert.deepStrictEqual(
        concat(...stream),
        concat(...Array.from({ length: expected }, () => pages.map(recordOf)).flat())
      )
    })

    it("B17: sends nothing when memory or link are gone, or what is left would have no room", () => {
      const { far, region, run } = rig()
      assert.isBelow(run([5], new Uint8Array(P)).left, 0)
      assert.isBelow(run([PAGES], new Uint8Array(2 * P)).left, 0)
      assert.strictEqual(readAll(far).length, 0)
      far.close()
      assert.strictEqual(run([5], new Uint8Array(2 * P)).left, EPIPE)
      region.close()
      assert.isBelow(run([5], new Uint8Array(2 * P)).left, 0)
    })
  })

  describe(`fetching pages: ${which}`, () => {
    const rig = async () => {
      const region = Region.anonymous(PAGES * P)
      const uffd = Uffd.open({ required: constants.FEATURE_EVENT_REMOVE, userModeOnly: true }).descriptor
      addon.register(uffd, region.address, PAGES * P, constants.MODE_MISSING)
      const block = { idstr: "ram", length: PAGES * P, address: region.address, hostPageSize: P, mode: "copy" as const }
      const channel = serve(addon, uffd, [block], [])
      const threads = await Promise.all([Toucher.start(region), Toucher.start(region)])
      const [link, far] = pair()
      closing.push(() => region.close(), () => channel.close(), ...threads.map((thread) => () => thread.end()))
      const fetch: NonNullable<FaultChannel["fetch"]> = which === "reference" ? fetchOver(channel) : channel.fetch!
      const plan = new Float64Array(Fetch.words + 64 * LOG_WORDS)
      const buffer = new Uint8Array(8 * P)
      const requested = new Uint8Array(PAGES / 8)
      const received = new Uint8Array(PAGES / 8)
      plan.set([region.address, PAGES, P, PAGE_FLAGS, FILL_FLAGS, COMMAND, patience, 100, 6 * P, 1, 0])
      const run = () => {
        const n = fetch(link, plan, requested, received, buffer)
        // What the caller does with the log.
        for (const [kind, first, pages] of entries(plan, Fetch.words, Math.max(0, n), [0, 1, 3])) {
          const bits = kind === Logged.asked ? requested : received
          const past = first! + (kind! >= Logged.run ? pages! : 1)
          for (let page = first!; page < past; page++) bits[page >> 3]! |= 1 << (page & 7)
        }
        return n
      }
      return {
        addressOf: (page: number) => region.address + page * P,
        channel,
        far,
        link,
        plan,
        buffer,
        requested,
        received,
        threads,
        run,
        log: (count: number) => entries(plan, Fetch.words, count, [0, 1, 3]),
        unhandled: () => buffer.slice(100, 100 + plan[Fetch.unhandled]!),
        /** Runs until the kernel has told of a fault. */
        runOnFault: async () => {
          for (;;) {
            const n = run()
            if (n !== 0 || plan[Fetch.faults] !== 0) return n
            await new Promise(setImmediate)
          }
        }
      }
    }

    it("waits no longer than 8 ms, asleep or not", async () => {
      const { plan, run } = await rig()
      for (const nanos of [8_000_001, -8_000_001, -Infinity, NaN]) {
        plan[Fetch.nanos] = nanos
        if (which !== "reference") assert.throws(run, RangeError)
      }
    })

    it("asks for a page that a thread waits for, once, and installs what comes", async () => {
      const { far, log, plan, run, runOnFault, threads: [one, two], unhandled } = await rig()
      const reading = one.byte(5 * P + 7)
      assert.strictEqual(await runOnFault(), 1)
      assert.deepStrictEqual(log(1), [[0, 5, 0]])
      assert.deepStrictEqual(readAll(far), request([5]))
      assert.strictEqual(plan[Fetch.bytesOut], 13)
      // Another fault on the same page is not for here.
      const again = two.byte(5 * P)
      await runOnFault()
      assert.deepStrictEqual([plan[Fetch.faults], plan[Fetch.logged], plan[Fetch.bytesOut]], [1, 0, 0])
      write(far, recordOf(5))
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual(log(1), [[1, 5, 0]])
      assert.deepStrictEqual([plan[Fetch.bytesIn], unhandled().length], [8 + P, 0])
      assert.strictEqual(await reading, contentOf(5)[7])
      assert.strictEqual(await again, contentOf(5)[0])
    })

    it("installs pages of one byte, zeros among them", async () => {
      const { far, log, run, runOnFault, threads: [one] } = await rig()
      for (const page of [3, 0]) {
        const reading = one.byte(page * P + 9)
        await runOnFault()
        write(far, recordOf(page))
        assert.strictEqual(run(), 1)
        assert.deepStrictEqual(log(1), [[1, page, 1]])
        assert.strictEqual(await reading, page)
      }
    })

    it("B23: takes an answer in pieces, and leaves the pieces when no more comes", async () => {
      const { far, plan, run, runOnFault, threads: [one], unhandled } = await rig()
      const reading = one.byte(5 * P)
      await runOnFault()
      const bytes = recordOf(5)
      write(far, bytes.subarray(0, 1000))
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual(unhandled(), bytes.slice(0, 1000))
      write(far, bytes)
      assert.strictEqual(run(), 1)
      assert.strictEqual(plan[Fetch.unhandled], 0)
      assert.strictEqual(await reading, contentOf(5)[0])
    })

    const strangers: ReadonlyArray<readonly [what: string, bytes: Uint8Array]> = [
      ["leaves flags of another kind", record(5, 0x08, contentOf(5))],
      ["B27: leaves a record with neither page nor fill", record(5, 0x20, contentOf(5))],
      ["B28: leaves a page beyond the block", record(PAGES, PAGE_FLAGS, contentOf(5))],
      ["leaves the end of the stream of pages", record(0, 0x10, new Uint8Array(0))]
    ]
    for (const [what, bytes] of strangers) {
      it(`${what} as it came, and what follows it`, async () => {
        const { far, plan, run, runOnFault, threads: [one], unhandled } = await rig()
        const reading = one.byte(5 * P)
        await runOnFault()
        write(far, concat(bytes, recordOf(5)))
        assert.strictEqual(run(), 0)
        assert.deepStrictEqual(unhandled(), concat(bytes, recordOf(5)))
        write(far, recordOf(5))
        assert.strictEqual(run(), 1)
        assert.strictEqual(plan[Fetch.unhandled], 0)
        await reading
      })
    }

    it("installs pages that nobody asked for, neighbours as one entry", async () => {
      const { far, log, plan, requested, run, threads: [one], unhandled } = await rig()
      const zeros = record(6, FILL_FLAGS, new Uint8Array(1))
      write(far, concat(recordOf(4), recordOf(5), zeros, recordOf(7), recordOf(9)))
      let n = 0
      const all: Array<ReadonlyArray<number>> = []
      // As much as the buffer has room for, at a time.
      while ((n = run()) > 0) all.push(...log(n))
      assert.deepStrictEqual(all, [[2, 4, 2], [3, 6, 1], [2, 7, 1], [2, 9, 1]])
      assert.deepStrictEqual([unhandled().length, plan[Fetch.bytesOut]], [0, 0])
      assert.strictEqual(requested[0], 0)
      for (const page of [4, 5, 7, 9]) assert.strictEqual(await one.byte(page * P + 3), contentOf(page)[3])
      assert.strictEqual(await one.byte(6 * P + 3), 0)
    })

    it("installs runs of one byte and of zeros", async () => {
      const { far, log, run, threads: [one] } = await rig()
      const fills = (byte: number, first: number, count: number) =>
        Array.from({ length: count }, (_, i) => record(first + i, FILL_FLAGS, Uint8Array.of(byte)))
      write(far, concat(...fills(7, 0, 5), ...fills(0, 5, 20), ...fills(0, 26, 2)))
      assert.strictEqual(run(), 3)
      assert.deepStrictEqual(log(3), [[3, 0, 5], [3, 5, 20], [3, 26, 2]])
      assert.deepStrictEqual([await one.byte(4 * P), await one.byte(24 * P), await one.byte(27 * P + 1)], [7, 0, 0])
    })

    it("ends a run before a page that was asked for, and tells it from the others", async () => {
      const { far, log, run, runOnFault, threads: [one], unhandled } = await rig()
      const reading = one.byte(5 * P)
      await runOnFault()
      write(far, concat(recordOf(4), recordOf(5), recordOf(6)))
      assert.strictEqual(run(), 3)
      assert.deepStrictEqual(log(3), [[2, 4, 1], [1, 5, 0], [2, 6, 1]])
      assert.strictEqual(unhandled().length, 0)
      await reading
    })

    it("leaves a page that came in the same call, in a run or before one", async () => {
      const { far, log, run, unhandled } = await rig()
      write(far, concat(recordOf(4), recordOf(5), recordOf(4)))
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual(unhandled(), recordOf(4))
      write(far, concat(recordOf(8), recordOf(7), recordOf(8)))
      assert.strictEqual(run(), 2)
      assert.deepStrictEqual([log(2), unhandled()], [[[2, 8, 1], [2, 7, 1]], recordOf(8)])
    })

    it("goes on with bytes that are there already", async () => {
      const { buffer, far, log, plan, run, threads: [one], unhandled } = await rig()
      const bytes = recordOf(5)
      buffer.set(bytes.subarray(0, 700), 100)
      plan[Fetch.have] = 700
      write(far, concat(bytes.subarray(700), recordOf(6)))
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual([log(1), unhandled().length], [[[2, 5, 2]], 0])
      assert.strictEqual(plan[Fetch.bytesIn], 2 * (8 + P))
      assert.strictEqual(await one.byte(5 * P + 7), contentOf(5)[7])
    })

    it("leaves faults where it may not ask, or the page was asked for or received", async () => {
      const { addressOf, channel, far, plan, received, requested, runOnFault, threads: [one, two] } = await rig()
      plan[Fetch.asks] = 0
      const first = one.byte(5 * P)
      await runOnFault()
      assert.deepStrictEqual([plan[Fetch.faults], channel.ring[2]], [1, addressOf(5)])
      plan[Fetch.asks] = 1
      requested[0]! |= 1 << 6
      received[0]! |= 1 << 7
      for (const page of [6, 7]) {
        const reading = two.byte(page * P)
        await runOnFault()
        assert.deepStrictEqual([plan[Fetch.faults], channel.ring[2]], [1, addressOf(page)])
        assert.strictEqual(channel.zeropage(addressOf(page), P), P)
        await reading
      }
      assert.strictEqual(channel.zeropage(addressOf(5), P), P)
      await first
      assert.strictEqual(readAll(far).length, 0)
    })

    it("B53: leaves a page that has come already, and one that came twice in one call", async () => {
      const { far, plan, received, run, runOnFault, threads: [one], unhandled } = await rig()
      const reading = one.byte(5 * P)
      await runOnFault()
      write(far, concat(recordOf(5), recordOf(5)))
      assert.strictEqual(run(), 1)
      assert.deepStrictEqual(unhandled(), recordOf(5))
      await reading
      assert.strictEqual(received[0], 1 << 5)
      write(far, recordOf(5))
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual([unhandled(), plan[Fetch.bytesIn]], [recordOf(5), 0])
    })

    it("B29: leaves a page that was given back: it is received for ever", async () => {
      const { addressOf, channel, far, log, received, run, runOnFault, threads: [one], unhandled } = await rig()
      const reading = one.byte(5 * P)
      await runOnFault()
      received[0]! |= 1 << 5
      write(far, recordOf(5))
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual([log(0), unhandled()], [[], recordOf(5)])
      assert.strictEqual(channel.zeropage(addressOf(5), P), P)
      assert.strictEqual(await reading, 0)
    })

    it("leaves a removal for the caller, and an answer for a page that is there", async () => {
      const { addressOf, channel, far, plan, run, runOnFault, threads: [one, two], unhandled } = await rig()
      const reading = one.byte(5 * P)
      await runOnFault()
      readAll(far)
      const removing = two.run({ kind: "madvise", offset: 8 * P, length: P, advice: constants.MADV_DONTNEED })
      await runOnFault()
      assert.deepStrictEqual(Array.from(channel.ring.subarray(0, 3)), [0x15, addressOf(8), addressOf(9)])
      await removing
      write(far, recordOf(5))
      assert.strictEqual(run(), 1)
      assert.strictEqual(plan[Fetch.unhandled], 0)
      await reading
      // A page that is there already: what that means is not for here.
      const there = one.byte(9 * P)
      await runOnFault()
      assert.strictEqual(channel.zeropage(addressOf(9), P), P)
      await there
      write(far, recordOf(9))
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual(unhandled(), recordOf(9))
    })

    it("finds nothing at the end of the stream", async () => {
      const { far, plan, run } = await rig()
      far.close()
      assert.strictEqual(run(), 0)
      assert.deepStrictEqual([plan[Fetch.faults], plan[Fetch.unhandled]], [0, 0])
    })
  })
}
