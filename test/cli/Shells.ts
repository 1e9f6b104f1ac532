/**
 * Two shells: a guest module of the user's own in a directory outside the checkout, `run` in one, `receive` in the other,
 * and the commands about them.
 */
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { examine } from "../../src/cli/HostFindings.ts"
import { directory, type Options, type Running, start } from "./Postcopy.ts"

export const { canReceive } = examine()
/** For the titles of tests that are skipped. */
export const why = canReceive ? "" : " (skipped: this host has no userfaultfd; see postcopy doctor)"

export const library = new URL("../../src/index.ts", import.meta.url).href

/** Sixteen MiB whose every page says which it is, and a count that goes on. */
export const guestSource = `
import { Guest } from ${JSON.stringify(library)}
export default Guest.memory({
  blocks: ({ memoryMiB = 16 }) => [{ idstr: "pc.ram", length: memoryMiB * 2 ** 20 }],
  start: (ctx) => {
    const words = new Uint32Array(ctx.memory["pc.ram"].buffer, ctx.memory["pc.ram"].byteOffset, ctx.memory["pc.ram"].length / 4)
    for (let at = 0; at < words.length; at += 1024) words.fill(at / 1024 + 1, at, at + 1024)
    ctx.state = { steps: 0 }
  },
  step: (ctx) => { ctx.state.steps++; return { restMillis: 1 } },
  call: (ctx, request) => {
    if (request.op === "throw") throw new Error("this guest throws")
    if (request.op === "sum") {
      const words = new Uint32Array(ctx.memory["pc.ram"].buffer, ctx.memory["pc.ram"].byteOffset, ctx.memory["pc.ram"].length / 4)
      let sum = 0
      for (let at = 0; at < words.length; at += 512) sum += words[at]
      return { sum }
    }
    return { steps: ctx.state.steps }
  },
  save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),
  restore: (ctx, bytes) => { ctx.state = JSON.parse(new TextDecoder().decode(bytes)) }
})
`

/** Two words a page of 4096, each the page's number from 1. */
export const sum = 4096 * 4097

export interface Shells {
  readonly cwd: string
  readonly source: Running
  readonly destination: Running
  readonly uri: string
  /** A command about one of them. */
  readonly on: (side: "s" | "d", command: string, ...args: ReadonlyArray<string>) => Running
}

/** A directory with the guest's module, `run` and `receive` in it, ready. */
export const shells = async (
  from: string,
  receiveOptions: ReadonlyArray<string> = [],
  options: Options = {}
): Promise<Shells> => {
  const cwd = directory()
  writeFileSync(join(cwd, "guest.ts"), guestSource)
  const source = start(["run", "./guest.ts", "--control", "s", "--json"], { cwd })
  const destination = start(["receive", "./guest.ts", from, "--control", "d", "--json", ...receiveOptions], {
    ...options,
    cwd
  })
  await source.event("running")
  const { uri } = await destination.event("listening")
  const on = (side: "s" | "d", command: string, ...args: ReadonlyArray<string>) =>
    start([command, ...args, "--control", side, "--json"], { cwd })
  return { cwd, source, destination, uri, on }
}

export const ask = async ({ on }: Shells, side: "s" | "d", op: string) => {
  const { code, error, objects } = await on(side, "call", JSON.stringify({ op })).ended
  return { code, error, answer: objects[0] }
}

export const leftovers = (cwd: string) => readdirSync(cwd).filter((name) => name !== "guest.ts")

/** Waits for a state, by the command that is there for it. */
export const reached = async ({ on }: Shells, side: "s" | "d", state: string) => {
  let seen: string | undefined
  while (seen !== state) seen = (await on(side, "status").ended).objects[0]?.state
}
