/** `qemu save` and `qemu restore` as a user gives them, and what must be true of a machine afterwards. */
import { assert } from "vitest"
import { postcopy } from "../cli/Postcopy.ts"
import * as Machine from "./Machine.ts"

/** Saves; the event. */
export const save = async (...args: ReadonlyArray<string>) => {
  const saved = await postcopy("qemu", "save", "--json", ...args)
  assert.strictEqual(saved.code, 0, saved.stderr)
  return saved.objects[0]
}

/** Restores to the end; the report. */
export const restored = async (...args: ReadonlyArray<string>) => {
  const ended = await postcopy("qemu", "restore", "--json", ...args)
  assert.strictEqual(ended.code, 0, ended.stderr)
  return ended.objects.at(-1).report
}

/** No page was wrong, and each tick followed the one before. */
export const unharmed = (machine: Machine.Machine) => {
  assert.strictEqual(machine.passes.at(-1)!.bad, 0)
  assert.notInclude(machine.console(), "BAD")
  assert.deepStrictEqual(Machine.lostTicks(machine), [])
}

/** Waits for the copy's first tick: it is the one after the last of the machine that was saved. */
export const follows = async (copy: Machine.Machine, saved: Machine.Machine) => {
  await copy.until("a tick", () => copy.ticks.length > 0)
  assert.strictEqual(copy.ticks[0], (saved.ticks.at(-1)! + 1) % 256)
}
