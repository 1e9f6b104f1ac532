/**
 * `postcopy inspect`: decodes captured bytes of one of the four channels, message by message, in constant memory. What
 * comes before a mistake is shown; then the mistake, where it is, and exit 65.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { hash } from "node:crypto"
import { createReadStream } from "node:fs"
import { Failure, usage } from "./Failure.ts"
import { isRead, Output } from "./Output.ts"

const channel = Argument.Literals("channel", ["request", "ram", "pipe", "savevm"]).pipe(
  Argument.withDescription("What was captured: request, ram, pipe or savevm")
)

const file = Argument.String("file").pipe(
  Argument.withDescription("The captured bytes; stdin when left out"),
  Argument.optional
)

/** `name=LENGTH,name=LENGTH`: bytes of the payload of device sections that nobody else knows. */
export const parseDevices = (text: string): Option.Option<Readonly<Record<string, number>>> => {
  const devices: Record<string, number> = {}
  for (const item of text.split(",")) {
    const match = /^([^=]+)=(\d{1,9})$/.exec(item)
    if (match === null || Object.hasOwn(devices, match[1]!)) return Option.none()
    devices[match[1]!] = Number(match[2])
  }
  return Option.some(devices)
}

const devices = Flag.String("devices").pipe(
  Flag.withMetavar("NAME=LENGTH,…"),
  Flag.filterMap(parseDevices, () => "names and payload lengths such as cpu=512,timer=16"),
  Flag.withDescription("savevm: payload lengths of device sections"),
  Flag.withDefault({})
)

const CHUNK_BYTES = 256 * 1024

/** Reads a source chunk by chunk: the next one only when the last is done with. */
const chunks = (path: string | undefined) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const stream = path === undefined || path === "-"
        ? process.stdin
        : createReadStream(path, { highWaterMark: CHUNK_BYTES })
      return { stream, iterator: stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array> }
    }),
    ({ stream }) => Effect.sync(() => stream.destroy())
  ).pipe(
    Effect.map(({ iterator }) =>
      Effect.tryPromise({
        try: () => iterator.next(),
        catch: (error) => {
          const { code, message } = error as NodeJS.ErrnoException
          return usage(`cannot read ${path ?? "stdin"} (${code ?? message}); give a file that can be read`)
        }
      })
    )
  )

/** Waits until the reader of stdout has taken what it was given: decoding is faster than most readers. */
const drained = Effect.callback<void>((resume) => {
  const { stdout } = process
  if (!stdout.writableNeedDrain || !isRead()) return resume(Effect.void)
  const done = () => {
    stdout.off("drain", done).off("error", done)
    resume(Effect.void)
  }
  stdout.on("drain", done).on("error", done)
  return Effect.sync(() => stdout.off("drain", done).off("error", done))
})

/** `4096  page  idstr=pc.ram address=0 …`: an offset, what it is, and the rest. */
const describe = (object: Readonly<Record<string, unknown>>): string => {
  const { cmd, offset, type, ...rest } = object
  const fields = Object.entries(rest).map(([name, value]) =>
    `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`
  )
  return `${String(offset).padStart(10)}  ${String(cmd ?? type).padEnd(18)}  ${fields.join(" ")}`
}

export const inspect = Command.make(
  "inspect",
  { channel, file, devices },
  Effect.fnUntraced(function*({ channel, devices, file }) {
    const Inspect = yield* Effect.promise(() => import("../protocol/umem/Inspect.ts"))
    const output = yield* Output
    const next = yield* chunks(Option.getOrUndefined(file))
    const decoder = Inspect.inspect(channel, { sha256: (bytes: Uint8Array) => hash("sha256", bytes), devices })
    const show = Effect.fnUntraced(function*(objects: ReadonlyArray<Readonly<Record<string, unknown>>>) {
      for (const object of objects) yield* output.emit(object, describe(object))
      yield* drained
    })
    for (let chunk = yield* next; chunk.done !== true && isRead(); chunk = yield* next) {
      yield* show(decoder.push(chunk.value))
    }
    const { error, objects } = decoder.finish()
    yield* show(objects)
    if (error !== undefined && isRead()) {
      const { message, offset, tag } = error
      return yield* new Failure({
        tag,
        message: output.json ? message : `${channel}: ${message} (at byte ${offset})`,
        code: 65,
        details: { offset }
      })
    }
  }, Effect.scoped)
).pipe(
  Command.withExamples([
    { command: "postcopy inspect request capture.bin", description: "What a destination asked for" },
    {
      command: "postcopy inspect savevm --devices cpu=512 --json < capture.bin",
      description: "A whole stream, as JSON lines"
    }
  ])
)
