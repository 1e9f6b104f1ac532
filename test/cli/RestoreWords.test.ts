/** The short way to a restore understands what the command tree understands, or nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { CliOutput, Command } from "effect/cli"
import * as Environment from "../../src/cli/Environment.ts"
import * as Output from "../../src/cli/Output.ts"
import { Json } from "../../src/cli/Parameters.ts"
import { presenter } from "../../src/cli/Presentation.ts"
import { over } from "../../src/cli/qemuRestore.ts"
import type { Asked } from "../../src/cli/QemuRestoring.ts"
import * as RestoreWords from "../../src/cli/RestoreWords.ts"
import * as Loads from "./Loads.ts"
import { start } from "./Postcopy.ts"

const context = Layer.mergeAll(
  Environment.layer,
  CliOutput.layerPresenter({ ...presenter(Output.make(false)), present: () => Effect.void })
)

/** What the command tree hands to the command; `undefined` where it does not come so far. */
const byTree = async (words: ReadonlyArray<string>): Promise<Asked | undefined> => {
  let taken: Asked | undefined
  const root = Command.make("postcopy").pipe(
    Command.withSubcommands([over((asked) => Effect.sync(() => void (taken = asked)))]),
    Command.withGlobalFlags([Json])
  )
  const exit = await Effect.runPromiseExit(
    Command.runWith(root, { version: "0" })(["restore", ...words]).pipe(Effect.provide(context))
  )
  return Exit.isSuccess(exit) ? taken : undefined
}

const flags: ReadonlyArray<ReadonlyArray<string>> = [
  ["--qmp", "vm.qmp"],
  ["--qmp=vm.qmp"],
  ["--qmp=unix:a=b"],
  ["--max-bandwidth", "1.5M"],
  ["--max-bandwidth=unlimited"],
  ["--record", "a b"],
  ["--replay=first"],
  ["--nobg"],
  ["--resume"],
  ["--preempt"],
  ["--json"]
]

/** Each flag, each two of them, and all kinds at once; before, between and behind the arguments. */
const understood: ReadonlyArray<ReadonlyArray<string>> = [
  ["snap", "unix:in"],
  ["snap", "-"],
  ["restore", "qemu"],
  ...flags.flatMap((one) => [[...one, "snap", "unix:in"], ["snap", ...one, "unix:in"], ["snap", "unix:in", ...one]]),
  ...flags.flatMap((one, i) =>
    flags.slice(i + 1).filter(([name]) => name!.slice(0, 5) !== one[0]!.slice(0, 5))
      .map((other) => ["snap", ...other, "tcp:h:1", ...one])
  ),
  ["--json", "--nobg", "--qmp", "q", "--record", "r", "snap", "--max-bandwidth", "3k", "--preempt", "-"]
]

describe("the words of a restore", () => {
  it("mean what they mean to the command tree", async () => {
    for (const words of understood) {
      const asked = RestoreWords.parse(words)
      assert.isDefined(asked, words.join(" "))
      assert.deepStrictEqual(asked, await byTree(words), words.join(" "))
    }
  })

  it.each<ReadonlyArray<string>>([
    [],
    ["snap"],
    ["snap", "unix:in", "more"],
    ["snap", "unix:in", "--help"],
    ["snap", "unix:in", "-h"],
    ["snap", "unix:in", "--version"],
    ["snap", "unix:in", "--log-level", "debug"],
    ["snap", "unix:in", "--completions", "bash"],
    ["snap", "unix:in", "--max-bandwidth", "fast"],
    ["snap", "unix:in", "--max-bandwidth"],
    ["snap", "unix:in", "--qmp"],
    ["snap", "unix:in", "--qmp="],
    ["snap", "unix:in", "--qmp", "--nobg"],
    ["snap", "unix:in", "--qmp", "a", "--qmp", "b"],
    ["snap", "unix:in", "--nobg", "--nobg"],
    ["snap", "unix:in", "--nobg=false"],
    ["snap", "unix:in", "--json=true"],
    ["snap", "unix:in", "--no-nobg"],
    ["snap", "unix:in", "--Nobg"],
    ["snap", "unix:in", "--web"],
    ["--", "snap", "unix:in"],
    ["", "unix:in"],
    ["-", "unix:in"],
    ["snap", "unix:in", "--qmp", "-"]
  ])("are left to the command tree where they may mean something else: %j", (...words) => {
    assert.isUndefined(RestoreWords.parse(words))
  })

  it("load no command tree, and nothing for files", async () => {
    const { code, stderr } = await start(["qemu", "restore", "/nowhere", "unix:/nowhere"], { env: Loads.env }).ended
    assert.strictEqual(code, 1)
    assert.include(stderr, "cannot read /nowhere/manifest.json (ENOENT)")
    const { modules } = Loads.parse(stderr)
    assert.isTrue(modules.some((url) => url.endsWith("/src/qemu/RestoreMachine.ts")))
    assert.deepStrictEqual(
      modules.filter((url) =>
        /\/effect\/dist\/(cli\/|(FileSystem|Stream|Logger)\.js)|\/cli\/(main|Commands)\.ts$/.test(url)
      ),
      []
    )
  })

  it.each(["--help", "--max-bandwidth=fast", "--what"])("are answered by the command tree: %s", async (flag) => {
    const short = await start(["qemu", "restore", "snap", "unix:in", flag]).ended
    const long = await start(["--log-level", "info", "qemu", "restore", "snap", "unix:in", flag]).ended
    assert.deepStrictEqual([short.code, short.stdout, short.stderr], [long.code, long.stdout, long.stderr])
    assert.strictEqual(short.code, flag === "--help" ? 0 : 1)
  })
})
