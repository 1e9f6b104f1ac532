// Reads vitest's JSON report, names the tests that were skipped (none may be, where userfaultfd works), and counts.
import { existsSync, readFileSync } from "node:fs"

const report = JSON.parse(readFileSync(process.argv[2], "utf8"))
const skipped = report.testResults.flatMap((file) =>
  file.assertionResults
    .filter(({ status }) => status !== "passed" && status !== "failed")
    .map(({ fullName, status }) => `${status}: ${fullName}`)
)
const failed = report.numFailedTests +
  report.testResults.filter(({ assertionResults, status }) =>
    status === "failed" && assertionResults.every((test) => test.status !== "failed")
  ).length
if (skipped.length > 0) {
  console.error(`${skipped.length} tests did not run:`)
  for (const line of skipped) console.error(`  ${line}`)
}
if (!existsSync("/dev/userfaultfd")) console.error("this host has no /dev/userfaultfd")
console.log(`${report.numPassedTests} passed, ${failed + skipped.length} failed`)
process.exitCode = failed + skipped.length > 0 || report.numPassedTests === 0 ? 1 : 0
