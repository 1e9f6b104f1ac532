import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Binding from "../../src/native/Binding.ts"

/** Why the thread cannot be parked here; `false`: it can. */
const cannot = (): string | false => {
  const addon = Binding.load()
  if (addon === undefined) return `no addon: ${Binding.failure()}`
  const { device, syscall } = addon.probe()
  return device.available || syscall.available ? false : "no userfaultfd on this host"
}

const end = (way: string) =>
  Effect.callback<
    { readonly code: number | null; readonly signal: string | null; readonly out: number; readonly err: string }
  >((resume) => {
    const script = fileURLToPath(new URL("./fixtures/parked.ts", import.meta.url))
    const child = spawn(process.execPath, [script, way], { stdio: ["ignore", "pipe", "pipe"] })
    let out = 0
    let err = ""
    child.stdout.on("data", (chunk: Buffer) => out += chunk.length)
    child.stderr.on("data", (chunk: Buffer) => err += chunk.toString())
    child.on("close", (code, signal) => resume(Effect.succeed({ code, signal, out, err })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const reason = cannot()

describe(`a process whose vCPU thread waits in a page fault${reason === false ? "" : ` (skipped: ${reason})`}`, () => {
  it.live.skipIf(reason !== false)(
    "ends by process.exit after its output and every exit handler",
    () =>
      Effect.gen(function*() {
        const { code, err, out } = yield* end("exit")
        assert.strictEqual(code, 7, err)
        assert.strictEqual(out, 2 ** 20)
        assert.match(err, /a later exit handler\nthe last exit handler\n$/)
      })
  )

  it.live.skipIf(reason !== false)("ends by an uncaught error, which is printed", () =>
    Effect.gen(function*() {
      const { code, err, out } = yield* end("throw")
      assert.strictEqual(code, 1, err)
      assert.strictEqual(out, 2 ** 20)
      assert.match(err, /the last exit handler\nError: thrown in the main thread\n/)
    }))

  it.live.skipIf(reason !== false)(
    "ends when its event loop does, the scope having given the thread up",
    () =>
      Effect.gen(function*() {
        const { code, err } = yield* end("end")
        assert.strictEqual(code, 0, err)
      })
  )
})
