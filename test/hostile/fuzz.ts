/**
 * `npm run fuzz -- --inputs N --seed S [--target NAME]`: hostile inputs for every decoder and both live ends; prints what
 * they came to. Exit 1 with the input's own seed when something is wrong.
 */
import { parseArgs } from "node:util"
import * as Campaign from "./Campaign.ts"

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    target: { type: "string" }
  }
})
const inputs = Number(values.inputs)
const seed = Number(values.seed)
if (!Number.isSafeInteger(inputs) || inputs < 1 || !Number.isSafeInteger(seed)) {
  throw new RangeError("--inputs and --seed are whole numbers, --inputs of at least 1")
}
if (values.target !== undefined && !Campaign.names.includes(values.target)) {
  throw new RangeError(`--target is one of ${Campaign.names.join(", ")}`)
}

const began = Date.now()
try {
  const { growth, measuredAgain, most, outcomes } = await Campaign.run({
    inputs,
    seed,
    ...(values.target === undefined ? {} : { target: values.target }),
    onBatch: (done) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${inputs}`)
    }
  })
  for (const [kind, count] of [...outcomes].sort()) console.log(`${String(count).padStart(8)}  ${kind}`)
  const seconds = (Date.now() - began) / 1000
  console.log(`${inputs} inputs from seed ${seed}: ${outcomes.size} different outcomes, nothing wrong; ${seconds} s`)
  console.log(
    `most allocated beyond the windows: ${most.bytes} bytes (seed ${most.seed}); measured again: ${measuredAgain}; kept: ${growth}`
  )
} catch (error) {
  if (!(error instanceof Error)) throw error
  console.error(error.message)
  process.exitCode = 1
}
