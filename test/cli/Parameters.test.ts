import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Result } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Addresses from "../../src/cli/Addresses.ts"
import { parseDevices } from "../../src/cli/inspect.ts"
import { wantsJson } from "../../src/cli/Output.ts"
import * as Parameters from "../../src/cli/Parameters.ts"
import * as Rate from "../../src/cli/Rate.ts"

describe("RATE", () => {
  const cases: ReadonlyArray<readonly [string, number]> = [
    ["1", 1],
    ["1000", 1000],
    ["512k", 512 * 1024],
    ["512K", 512 * 1024],
    ["100M", 100 * 2 ** 20],
    ["1G", 2 ** 30],
    ["1.5M", 1.5 * 2 ** 20],
    ["8388607G", 8388607 * 2 ** 30]
  ]
  it.each(cases)("%s is %d bytes per second", (text, bytesPerSecond) => {
    assert.deepStrictEqual(Rate.parse(text), Option.some({ bytesPerSecond }))
  })

  it("can be taken away", () => {
    assert.deepStrictEqual(Rate.parse("unlimited"), Option.some({ bytesPerSecond: undefined }))
  })

  it.each([
    "",
    "0",
    "0k",
    "0.0001",
    "-1",
    "+1",
    "1T",
    "1kB",
    "1 M",
    "k",
    "1e6",
    "0x10",
    ".5",
    "1.",
    "9999999999999G",
    "NaN"
  ])(
    "%j is refused",
    (text) => assert.isTrue(Option.isNone(Rate.parse(text)))
  )

  it("is shown with the unit that fits", () => {
    assert.strictEqual(Rate.format(100 * 2 ** 20), "100M/s")
    assert.strictEqual(Rate.format(1536), "1.5k/s")
    assert.strictEqual(Rate.format(3), "3/s")
    assert.strictEqual(Rate.format(5 * 2 ** 40), "5120G/s")
    assert.strictEqual(Rate.format(undefined), "unlimited")
  })
})

describe("--postcopy-flags", () => {
  it.each([["0", 0], ["1", 1], ["0x0", 0], ["0x1", 1], ["0X01", 1], ["01", 1], ["00", 0], ["0001", 1]] as const)(
    "%s is %d",
    (text, value) => assert.deepStrictEqual(Parameters.parsePostcopyFlags(text), Option.some(value))
  )

  it.each(["2", "3", "0x2", "0x10000001", "02", "09", "0b1", "1.0", "-1", "", "x", "0x", "01u", " 1"])(
    "%j is refused",
    (text) => assert.isTrue(Option.isNone(Parameters.parsePostcopyFlags(text)))
  )
})

describe("--memory", () => {
  it("takes a positive whole number", () => {
    assert.deepStrictEqual(Parameters.parseMemory("256"), Option.some(256))
  })

  it.each(["0", "-1", "1.5", "64M", "", "1e3", "99999999999"])("%j is refused", (text) => {
    assert.isTrue(Option.isNone(Parameters.parseMemory(text)))
  })
})

describe("--devices", () => {
  it("takes names and lengths", () => {
    assert.deepStrictEqual(parseDevices("cpu=512,timer=16"), Option.some({ cpu: 512, timer: 16 }))
  })

  it.each(["", "cpu", "cpu=", "cpu=-1", "=4", "cpu=1,cpu=2", "cpu=1,"])("%j is refused", (text) => {
    assert.isTrue(Option.isNone(parseDevices(text)))
  })
})

describe("--json", () => {
  it("is known before the command line is parsed", () => {
    assert.isTrue(wantsJson(["status", "--json"]))
    assert.isTrue(wantsJson(["--json=true", "status"]))
    assert.isFalse(wantsJson(["--json=false", "status"]))
    assert.isFalse(wantsJson(["call", "--", "--json"]))
  })
})

describe("URI", () => {
  it.effect("a relative unix path is the command's own", () =>
    Effect.gen(function*() {
      const { uri } = yield* Addresses.resolveUri("unix:link")
      assert.strictEqual(uri, `unix:${join(process.cwd(), "link")}`)
    }))

  it.effect("is refused with the exit code of what is wrong", () =>
    Effect.gen(function*() {
      const codes = yield* Effect.forEach(
        [
          "exec:cat",
          "tcp:host",
          "tcp:host:70000",
          "unix:",
          "fd:x",
          "fd:-1",
          "http://x",
          "",
          `unix:/${"x".repeat(107)}`
        ],
        (uri) => Effect.result(Addresses.resolveUri(uri))
      )
      const got = codes.map((result) => Result.isFailure(result) ? result.failure.code : 0)
      assert.deepStrictEqual(got, [69, 1, 1, 1, 1, 1, 1, 1, 1])
      const [exec] = codes
      assert.isTrue(Result.isFailure(exec!) && exec.failure.message.includes("ENOSYS"))
    }))
})

describe("GUEST", () => {
  it.effect("is a built-in name, a path or a file URL", () =>
    Effect.gen(function*() {
      const path = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "postcopy-test-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const file = join(path, "my guest.ts")
      writeFileSync(file, "")
      const href = `file://${path}/my%20guest.ts`
      assert.strictEqual(yield* Parameters.resolveGuest("counter"), "counter")
      assert.strictEqual(String(yield* Parameters.resolveGuest(file)), href)
      assert.strictEqual(String(yield* Parameters.resolveGuest(href)), href)
      for (const wrong of [path, join(path, "other.ts"), "file://elsewhere/guest.ts", "./counter"]) {
        const failure = yield* Effect.flip(Parameters.resolveGuest(wrong))
        assert.strictEqual(failure.code, 1)
      }
    }))
})

describe("--busy-poll", () => {
  it.each([["0", 0], ["50", 50], ["1000", 1000]] as const)("%s is %d microseconds", (text, value) => {
    assert.deepStrictEqual(Parameters.parseBusyPoll(text), Option.some(value))
  })

  it.each(["1001", "-1", "1.5", "50us", "", " 1"])("%j is refused", (text) => {
    assert.isTrue(Option.isNone(Parameters.parseBusyPoll(text)))
  })
})

describe("--prefault", () => {
  it.each([["8", 8, 0], ["8,2", 8, 2], ["0,4096", 0, 4096]] as const)("%s is %d and %d", (text, forward, backward) => {
    assert.deepStrictEqual(Parameters.parsePrefault(text), Option.some({ forward, backward }))
  })

  it.each(["4097", "1,4097", "-1", "1,", ",1", "1,2,3", "", "x"])("%j is refused", (text) => {
    assert.isTrue(Option.isNone(Parameters.parsePrefault(text)))
  })
})
