/**
 * `postcopy doctor`: what this host can do, and for everything that is missing the command that fixes it. Exit 69 where
 * no migration could arrive.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { Failure } from "./Failure.ts"
import type { Finding } from "./HostFindings.ts"
import { Output } from "./Output.ts"
import { terminalOf } from "./ProgressLine.ts"

/** Words and colours of the marks: green, red, none. */
const marks: Record<Finding["state"], readonly [word: string, color: number]> = {
  ok: ["[ok]  ", 32],
  missing: ["[MISS]", 31],
  note: ["[-]   ", 0]
}

const describe = (color: boolean) => ({ detail, fix, name, state }: Finding): string => {
  const [word, code] = marks[state]
  const mark = color ? `\x1b[${code}m${word}\x1b[0m` : word
  return `${mark} ${name.padEnd(29)}${detail}${fix === undefined ? "" : `\n${"".padEnd(36)}fix: ${fix}`}`
}

export const doctor = Command.make(
  "doctor",
  {},
  Effect.fnUntraced(function*() {
    const { examine } = yield* Effect.promise(() => import("./HostFindings.ts"))
    const output = yield* Output
    const { canReceive, findings, host } = yield* Effect.sync(examine)
    yield* output.emit(
      { canReceive, ...host, findings },
      [
        ...findings.map(describe(process.stdout.isTTY && terminalOf(process.env, undefined).color)),
        canReceive ? "This host can send and receive guests." : "This host can send guests, not receive them."
      ].join("\n")
    )
    if (!canReceive) {
      const fixes = findings.flatMap(({ fix, state }) => state === "missing" && fix !== undefined ? [fix] : [])
      return yield* new Failure({
        tag: "Unsupported",
        message: `no guest can be received on this host; ${
          fixes.length === 0 ? "see above" : `run: ${fixes.join("; or: ")}`
        }`,
        code: 69
      })
    }
  })
)
