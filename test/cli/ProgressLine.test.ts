import { assert, describe, it } from "@effect/vitest"
import { render, terminalOf } from "../../src/cli/ProgressLine.ts"
import { observation } from "../web/Pictures.ts"

const plain = { columns: 120, color: false, unicode: true }

describe("the progress line", () => {
  const now = observation({ at: 2_000, pages: { total: 8, onDemand: 2, background: 4, fill: 0, removed: 0 } })

  it("says phase, share, what is left, rate, latencies and requests in flight", () => {
    assert.strictEqual(
      render(observation(), now, plain),
      "pages follow   37.5 %  █████████░░░░░░░░░░░░░░░  20 KiB left  12 KiB/s  p50 80 us p99 80 us  1 in flight"
    )
  })

  it("never reaches the last column, whatever the width, and keeps the phase longest", () => {
    for (let columns = 20; columns < 140; columns++) {
      const line = render(observation(), now, { ...plain, columns })
      assert.isBelow(line.length, columns)
      assert.match(line, /^pages follow/)
    }
  })

  it("is painted only where that is welcome, and no wider for it", () => {
    const painted = render(undefined, now, { ...plain, columns: 60, color: true })
    assert.include(painted, "\x1b[34m")
    // oxlint-disable-next-line no-control-regex
    assert.strictEqual(painted.replaceAll(/\x1b\[\d+m/g, ""), render(undefined, now, { ...plain, columns: 60 }))
  })

  it("has no bar to fill before there is a guest", () => {
    const waiting = observation({
      status: { role: "destination", state: "listening", transferred: 0, remaining: 0, total: 0, blockedMs: 0 }
    })
    assert.strictEqual(render(undefined, waiting, { ...plain, unicode: false }), `waiting  ${"-".repeat(24)}`)
  })

  it("asks the environment", () => {
    assert.deepInclude(terminalOf({ LANG: "C.UTF-8" }, 100), { color: true, unicode: true, columns: 100 })
    assert.deepInclude(terminalOf({ NO_COLOR: "1" }, undefined), { color: false, unicode: false, columns: 80 })
    assert.deepInclude(terminalOf({ NO_COLOR: "" }, 3), { color: true, columns: 20 })
    assert.deepInclude(terminalOf({ TERM: "dumb" }, 0), { color: false, columns: 80 })
  })
})
