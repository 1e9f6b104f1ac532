import { assert, describe, it } from "@effect/vitest"
import { PageTable } from "../../src/protocol/umem/PageTable.ts"
import { random } from "./Streams.ts"

const K = 1024
const table = (pages: number, targetPageSize = 4 * K, hostPageSize = 4 * K) =>
  new PageTable({ length: pages * 4 * K, targetPageSize, hostPageSize })

/** Takes an arriving page and installs what became whole: the host pages installed, or why none. */
const arrive = (pages: PageTable, target: number): ReadonlyArray<number> | "discard" | "stage" => {
  const arrival = pages.received(target)
  if (arrival !== "install") return arrival
  const hosts: Array<number> = []
  for (let host = pages.firstHost(target); host < pages.endHost(target); host++) {
    if (!pages.installable(host)) continue
    pages.installed(host)
    hosts.push(host)
  }
  return hosts
}

/** Removes and tells what follows from it. */
const remove = (pages: PageTable, first: number, count = 1) => {
  pages.remove(first, count)
  return { tell: [...pages.newTargets], answer: [...pages.waiters], hosts: pages.newlyRemoved }
}

const fault = (pages: PageTable, host: number) => {
  const needs = pages.fault(host)
  return needs === "request" ? [...pages.newTargets] : needs
}

const shuffled = (n: number, next: () => number) => {
  const list = Array.from({ length: n }, (_, i) => i)
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1))
    const kept = list[i]!
    list[i] = list[j]!
    list[j] = kept
  }
  return list
}

describe("page table, faults and arrivals", () => {
  it("a page is asked for once, whoever faults on it and how often", () => {
    const pages = table(4)
    assert.deepStrictEqual(fault(pages, 2), [2])
    assert.strictEqual(fault(pages, 2), "known")
    assert.isTrue(pages.isRequested(2))
    assert.deepStrictEqual(arrive(pages, 2), [2])
    assert.strictEqual(fault(pages, 2), "installed")
  })
  it("B31: with target pages twice the host's, faults on host pages 3 and 2 are one request", () => {
    const pages = table(8, 8 * K, 4 * K)
    assert.deepStrictEqual(fault(pages, 3), [1])
    assert.strictEqual(fault(pages, 2), "known")
    assert.deepStrictEqual(arrive(pages, 1), [2, 3])
  })
  it("a fault on a larger host page asks for those of its target pages that are not here", () => {
    const pages = table(8, 4 * K, 16 * K)
    assert.strictEqual(arrive(pages, 5), "stage")
    assert.deepStrictEqual(fault(pages, 1), [4, 6, 7])
    assert.strictEqual(fault(pages, 1), "known")
  })
  it("L6: looking at a page does not mark it: it is still asked for, and still taken", () => {
    const pages = table(4)
    for (let page = 0; page < 4; page++) {
      assert.isFalse(pages.isRequested(page))
      assert.isTrue(pages.wants(page))
      assert.strictEqual(pages.wanted(page, 4 - page), 4 - page)
      assert.isFalse(pages.ready(page))
      assert.isTrue(pages.installable(page))
    }
    assert.deepStrictEqual(fault(pages, 2), [2])
    assert.deepStrictEqual(arrive(pages, 2), [2])
  })
  it("B53: a duplicate changes nothing", () => {
    const pages = table(2)
    arrive(pages, 0)
    assert.isFalse(pages.wants(0))
    assert.strictEqual(arrive(pages, 0), "discard")
    assert.strictEqual(pages.receivedTargets, 1)
    assert.strictEqual(pages.missing, 1)
  })
  it("B29: a page that comes after its block is complete is dropped", () => {
    const pages = table(1)
    arrive(pages, 0)
    assert.isTrue(pages.complete)
    assert.strictEqual(arrive(pages, 0), "discard")
    assert.isTrue(pages.complete)
  })
  it("pages that were installed elsewhere, asked for or not, are as if they had come one by one", () => {
    const pages = table(8)
    // Noted, and not asked for: whoever waits is let go on.
    assert.strictEqual(pages.fault(3), "request")
    pages.unrequest()
    pages.placed(2, 4)
    pages.fetched(6)
    assert.deepStrictEqual([pages.receivedTargets, pages.missing, pages.waiting], [5, 3, 0])
    assert.deepStrictEqual([1, 2, 5, 6, 7].map((page) => pages.isInstalled(page)), [false, true, true, true, false])
    assert.strictEqual(pages.received(4), "discard")
    assert.strictEqual(pages.fault(3), "installed")
    for (const page of [0, 1, 7]) arrive(pages, page)
    assert.isTrue(pages.complete)
  })
  it("a page that was prefetched is not asked for again, and a fault on it waits", () => {
    const pages = table(2)
    assert.isTrue(pages.prefetch(1))
    assert.deepStrictEqual(pages.newTargets, [1])
    assert.isFalse(pages.prefetch(1))
    assert.strictEqual(pages.waiting, 0)
    assert.strictEqual(fault(pages, 1), "known")
    assert.strictEqual(pages.waiting, 1)
  })
  it("testing a page does not ask for it", () => {
    const pages = table(2)
    pages.wants(0)
    pages.isRequested(0)
    pages.ready(0)
    pages.installable(0)
    assert.deepStrictEqual(fault(pages, 0), [0])
  })
  it("a block is complete only when the kernel has its last page", () => {
    const pages = table(1)
    assert.strictEqual(pages.received(0), "install")
    assert.strictEqual(pages.missing, 0)
    assert.isFalse(pages.complete)
    assert.strictEqual(fault(pages, 0), "known")
    assert.isTrue(pages.installed(0))
    assert.isFalse(pages.installed(0))
    assert.isTrue(pages.complete)
    assert.strictEqual(pages.waiting, 0)
  })
})

const sizes = [[4, 4], [8, 4], [4, 16], [4, 64]] as const

for (const [target, host] of sizes) {
  // The tail page exists only where host pages are the larger: lengths are multiples of the target page.
  const unit = target === 8 ? 2 : 1
  const make = (pages: number) => table(pages * unit, target * K, host * K)

  describe(`page table, target pages of ${target} KiB and host pages of ${host} KiB`, () => {
    const everyHostOnce = (pages: PageTable, order: ReadonlyArray<number>) => {
      const here = new Set<number>()
      const installed = order.flatMap((page) => {
        here.add(page)
        const hosts = arrive(pages, page)
        if (typeof hosts === "string") return []
        for (const host of hosts) {
          for (let target = pages.firstTarget(host); target < pages.endTarget(host); target++) {
            assert.isTrue(here.has(target))
          }
        }
        return [...hosts]
      })
      assert.deepStrictEqual([...installed].sort((a, b) => a - b), Array.from({ length: pages.hostPages }, (_, i) => i))
      assert.isTrue(pages.complete)
      assert.strictEqual(pages.missing, 0)
      assert.strictEqual(pages.receivedTargets, pages.targetPages)
      return installed
    }
    it("pages in order install every host page once", () => {
      const pages = make(32)
      const installed = everyHostOnce(pages, Array.from({ length: 32 }, (_, i) => i))
      assert.deepStrictEqual(installed, [...installed].sort((a, b) => a - b))
    })
    it("B30: pages in reverse install every host page once", () => {
      everyHostOnce(make(32), Array.from({ length: 32 }, (_, i) => 31 - i))
    })
    it("pages in any order, with duplicates, install every host page once", () => {
      const next = random(target * 100 + host)
      for (let round = 0; round < 20; round++) {
        const order = shuffled(32, next)
        everyHostOnce(make(32), order.flatMap((page) => next() < 0.5 ? [page, page] : [page]))
      }
    })
    it("B33: a block that ends inside a host page becomes complete", () => {
      for (const pages of [1, 17, 33, 35]) {
        everyHostOnce(make(pages), Array.from({ length: pages }, (_, i) => i))
        everyHostOnce(make(pages), Array.from({ length: pages }, (_, i) => pages - 1 - i))
      }
    })
    it("B33: a fault on the last host page asks for no page beyond the block", () => {
      const pages = make(33)
      const asked = fault(pages, pages.hostPages - 1)
      assert.isArray(asked)
      assert.isTrue((asked as ReadonlyArray<number>).every((page) => page < pages.targetPages))
    })
    it("with half of the host pages removed, the rest completes the block and no removed page is installed", () => {
      const pages = make(33)
      const removed = new Set(Array.from({ length: pages.hostPages }, (_, i) => i).filter((page) => page % 2 === 1))
      const told = [...removed].flatMap((page) => remove(pages, page).tell)
      const installed = Array.from({ length: 33 }, (_, i) => i).flatMap((page) => {
        const hosts = arrive(pages, page)
        return typeof hosts === "string" ? [] : [...hosts]
      })
      assert.isTrue(installed.every((page) => !removed.has(page)))
      assert.strictEqual(installed.length + removed.size, pages.hostPages)
      assert.isTrue(pages.complete)
      assert.strictEqual(pages.missing, 0)
      assert.strictEqual(pages.receivedTargets + pages.removedTargets, pages.targetPages)
      assert.strictEqual(told.length, pages.removedTargets)
      for (const page of removed) assert.strictEqual(fault(pages, page), "removed")
    })
    it("whatever the order, every page is installed or removed once and every waiter is answered", () => {
      const next = random(target * 7 + host)
      for (let round = 0; round < 60; round++) {
        const pages = make(1 + Math.floor(next() * 40))
        const asked = new Set<number>()
        const told = new Set<number>()
        const installed = new Set<number>()
        const waiting = new Set<number>()
        for (let step = 0; step < 200; step++) {
          const page = Math.floor(next() * pages.hostPages)
          const at = Math.floor(next() * pages.targetPages)
          if (next() < 0.4) {
            const needs = fault(pages, page)
            if (typeof needs !== "string") {
              for (const target of needs) {
                assert.isFalse(asked.has(target) || told.has(target))
                asked.add(target)
              }
            }
            if (typeof needs !== "string" || needs === "known") waiting.add(page)
          } else if (next() < 0.8) {
            const hosts = arrive(pages, at)
            if (typeof hosts === "string") continue
            for (const host of hosts) {
              assert.isFalse(installed.has(host) || pages.isRemoved(host))
              installed.add(host)
              waiting.delete(host)
            }
          } else {
            const { answer, tell } = remove(pages, page, 1 + Math.floor(next() * 3))
            for (const target of tell) {
              assert.isFalse(asked.has(target) || told.has(target))
              told.add(target)
            }
            for (const host of answer) assert.isTrue(waiting.delete(host))
          }
          assert.strictEqual(pages.waiting, waiting.size)
          assert.strictEqual(pages.receivedTargets + pages.removedTargets + pages.missing, pages.targetPages)
        }
        for (const target of shuffled(pages.targetPages, next)) {
          const hosts = arrive(pages, target)
          if (typeof hosts !== "string") { for (const host of hosts) waiting.delete(host) }
        }
        assert.isTrue(pages.complete)
        assert.strictEqual(waiting.size, 0)
      }
    })
  })
}

describe("page table, removals", () => {
  it("a page removed before it was asked for is told to the source, and its late data is dropped", () => {
    const pages = table(4)
    assert.deepStrictEqual(remove(pages, 3), { tell: [3], answer: [], hosts: 1 })
    assert.isFalse(pages.wants(3))
    assert.strictEqual(arrive(pages, 3), "discard")
    assert.strictEqual(fault(pages, 3), "removed")
    assert.strictEqual(pages.removedTargets, 1)
  })
  it("a page removed after it was asked for answers its waiter, tells nothing, and drops the data", () => {
    const pages = table(4)
    fault(pages, 1)
    assert.deepStrictEqual(remove(pages, 1), { tell: [], answer: [1], hosts: 1 })
    assert.strictEqual(pages.waiting, 0)
    assert.strictEqual(arrive(pages, 1), "discard")
    assert.strictEqual(pages.removedTargets, 1)
  })
  it("a page removed between its arrival and its installation is not installed", () => {
    const pages = table(1)
    fault(pages, 0)
    assert.strictEqual(pages.received(0), "install")
    assert.deepStrictEqual(remove(pages, 0), { tell: [], answer: [0], hosts: 1 })
    assert.isFalse(pages.installable(0))
    assert.isTrue(pages.complete)
    assert.strictEqual(pages.receivedTargets, 1)
    assert.strictEqual(pages.removedTargets, 0)
    assert.isTrue(pages.installed(0))
    assert.isTrue(pages.complete)
  })
  it("a page removed after it was installed reads zero and is never asked for", () => {
    const pages = table(1)
    arrive(pages, 0)
    assert.deepStrictEqual(remove(pages, 0), { tell: [], answer: [], hosts: 1 })
    assert.strictEqual(fault(pages, 0), "removed")
    assert.isFalse(pages.prefetch(0))
    assert.isTrue(pages.complete)
    assert.strictEqual(pages.removedTargets, 0)
  })
  it("a page removed after its block was complete leaves the block complete", () => {
    const pages = table(3)
    for (const page of [0, 1, 2]) arrive(pages, page)
    assert.deepStrictEqual(remove(pages, 0, 3), { tell: [], answer: [], hosts: 3 })
    assert.isTrue(pages.complete)
    assert.strictEqual(pages.missing, 0)
  })
  it("removing again changes nothing", () => {
    const pages = table(4)
    remove(pages, 1, 2)
    assert.deepStrictEqual(remove(pages, 0, 4), { tell: [0, 3], answer: [], hosts: 2 })
    assert.deepStrictEqual(remove(pages, 0, 4), { tell: [], answer: [], hosts: 0 })
    assert.isTrue(pages.complete)
  })
  it("a fault that is read after the removal that followed it gets zeros", () => {
    const pages = table(2)
    remove(pages, 1)
    assert.strictEqual(fault(pages, 1), "removed")
    assert.strictEqual(pages.waiting, 0)
  })
  it("B34: removing a larger host page tells of all its target pages", () => {
    const pages = table(8, 4 * K, 16 * K)
    assert.deepStrictEqual(remove(pages, 1), { tell: [4, 5, 6, 7], answer: [], hosts: 1 })
    assert.strictEqual(pages.removedTargets, 4)
  })
  it("B34: a larger target page is given up only when its last host page is removed", () => {
    const pages = table(4, 8 * K, 4 * K)
    assert.deepStrictEqual(remove(pages, 2), { tell: [], answer: [], hosts: 1 })
    assert.isTrue(pages.wants(1))
    assert.deepStrictEqual(fault(pages, 3), [1])
    assert.deepStrictEqual(arrive(pages, 1), [3])
    assert.deepStrictEqual(remove(pages, 0, 2), { tell: [0], answer: [], hosts: 2 })
    assert.isTrue(pages.complete)
  })
  it("a waiter on one half of a larger target page is answered although the other half is still wanted", () => {
    const pages = table(2, 8 * K, 4 * K)
    fault(pages, 0)
    fault(pages, 1)
    assert.deepStrictEqual(remove(pages, 0), { tell: [], answer: [0], hosts: 1 })
    assert.deepStrictEqual(arrive(pages, 0), [1])
  })
  it("a larger host page removed while half of it is staged counts what came as received", () => {
    const pages = table(4, 4 * K, 16 * K)
    arrive(pages, 0)
    arrive(pages, 1)
    fault(pages, 0)
    assert.deepStrictEqual(remove(pages, 0), { tell: [], answer: [0], hosts: 1 })
    assert.strictEqual(pages.receivedTargets, 2)
    assert.strictEqual(pages.removedTargets, 2)
    assert.strictEqual(arrive(pages, 2), "discard")
  })
  it("a range that reaches beyond the block is cut off at its ends", () => {
    const pages = table(3)
    assert.deepStrictEqual(remove(pages, -2, 1000), { tell: [0, 1, 2], answer: [], hosts: 3 })
  })
  it("B33: removing the tail host page gives up the target pages that exist", () => {
    const pages = table(5, 4 * K, 16 * K)
    assert.deepStrictEqual(remove(pages, 1), { tell: [4], answer: [], hosts: 1 })
  })
})
