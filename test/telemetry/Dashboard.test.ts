import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as Metrics from "../../src/telemetry/Metrics.ts"

/** Every metric there is, by name; a histogram has suffixes. */
const known = Object.values(Metrics).flatMap((metric) =>
  typeof metric === "object" && "id" in metric ? [metric.id] : []
)

describe("the example dashboard", () => {
  const text = readFileSync(new URL("../../docs/grafana-dashboard.json", import.meta.url), "utf8")
  const { panels } = JSON.parse(text)
  const shown = new Set(text.match(/postcopy_[a-z_]+/g)!.map((name) => name.replace(/_bucket$/, "")))

  it("asks for nothing that is not exported, and shows everything that is", () => {
    assert.deepStrictEqual([...shown].sort(), [...known].sort())
  })

  it("has panels that do not overlap", () => {
    const taken = new Set<string>()
    for (const { gridPos: { h, w, x, y }, id } of panels) {
      assert.isAtMost(x + w, 24)
      for (let row = y; row < y + h; row++) {
        for (let column = x; column < x + w; column++) {
          assert.isFalse(taken.has(`${column},${row}`), `panel ${id}`)
          taken.add(`${column},${row}`)
        }
      }
    }
  })
})
