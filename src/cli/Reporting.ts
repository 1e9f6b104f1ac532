/** Reports as people read them. */
import type { Report } from "../Report.ts"

const millis = (value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 1)} MiB`

const micros = (value: number | null) => value === null ? "-" : `${value.toFixed(0)} µs`

/** A few lines, the first of which says who and what became of it. */
export const describe = (report: Report): string => {
  const { background, fill, onDemand, removed, total } = report.pages
  const verb = report.role === "source" ? "sent" : "received"
  const lines = [
    `${report.role}: ${report.state}, ${total} pages of guest memory (${mebibytes(report.memoryBytes)})`,
    `  ${verb}: ${onDemand} on demand, ${background} in the background (${fill} of them fill), ${removed} removed`,
    `  downtime ${millis(report.downtimeMs)}, total ${millis(report.totalMs)}, ${
      report.throughputMiBps.toFixed(0)
    } MiB/s, ` +
    `${mebibytes(report.bytesOnWire)} on the wire`
  ]
  const faults = report.faults
  if (faults !== undefined) {
    const times = faults.count === 0
      ? ""
      : `: p50 ${micros(faults.p50Us)}, p90 ${micros(faults.p90Us)}, p99 ${micros(faults.p99Us)}, max ${
        micros(faults.maxUs)
      }`
    lines.push(`  ${faults.count} page requests${times}; the guest waited ${millis(faults.blockedMs)}`)
  }
  return lines.join("\n")
}

/** All of it where a person looks, one line in a pipe. */
export const summary = (report: Report): string => {
  if (process.stdout.isTTY) return describe(report)
  const { background, onDemand } = report.pages
  return `${report.role}: ${report.state}, ${mebibytes(report.memoryBytes)} in ${millis(report.totalMs)} (${
    report.throughputMiBps.toFixed(0)
  } MiB/s), downtime ${millis(report.downtimeMs)}, ${onDemand} pages on demand, ${background} in the background`
}
