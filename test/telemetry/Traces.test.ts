import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, References, Tracer } from "effect"
import * as Traces from "../../src/telemetry/Traces.ts"
import { Timeline } from "../../src/Timeline.ts"

const collecting = () => {
  const ended: Array<
    { name: string; from: number; to: number; parent: string | undefined; ok: boolean; attributes: object }
  > = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      const end = span.end.bind(span)
      span.end = (time, exit) => {
        end(time, exit)
        const parent = options.parent._tag === "Some" && options.parent.value._tag === "Span"
          ? options.parent.value.name
          : undefined
        const [from, to] = [options.startTime, time].map((nanos) => Number(nanos) / 1e6)
        ended.push({
          name: options.name,
          from: from!,
          to: to!,
          parent,
          ok: Exit.isSuccess(exit),
          attributes: Object.fromEntries(span.attributes)
        })
      }
      return span
    }
  })
  return { ended, layer: Layer.succeed(Tracer.Tracer, tracer) }
}

describe("the trace of a migration", () => {
  const traced = (timeline: Timeline) => Traces.migration({ id: "an-id", role: "source", peer: "tcp:h:1", timeline })

  it.effect("has one span, and one for each phase under it, from the marks of the timeline", () =>
    Effect.gen(function*() {
      let now = 0
      const timeline = new Timeline(() => now)
      const { ended, layer } = collecting()
      yield* traced(timeline)(Effect.sync(() => {
        timeline.begin("connecting")
        for (
          const [at, phase] of [[10, "announced"], [60, "paused"], [63, "switchover"], [900, "completed"]] as const
        ) {
          now = at
          timeline.mark(phase)
        }
      })).pipe(Effect.provide(layer))
      assert.deepStrictEqual(ended.map(({ from, name, parent, to }) => [name, from, to, parent]), [
        ["postcopy.connect", 0, 10, "postcopy.migration"],
        ["postcopy.announce", 10, 60, "postcopy.migration"],
        ["postcopy.switchover", 60, 63, "postcopy.migration"],
        ["postcopy.pages", 63, 900, "postcopy.migration"],
        ["postcopy.migration", 0, 0, undefined]
      ])
      assert.deepStrictEqual(ended.at(-1)!.attributes, {
        "postcopy.migration.id": "an-id",
        "postcopy.role": "source",
        "postcopy.peer": "tcp:h:1"
      })
    }))

  it.effect("ends with the failure, and has the phases up to it", () =>
    Effect.gen(function*() {
      const timeline = new Timeline(() => 5)
      const { ended, layer } = collecting()
      timeline.begin("connecting")
      timeline.mark("failed")
      yield* Effect.exit(traced(timeline)(Effect.fail("no connection"))).pipe(Effect.provide(layer))
      assert.deepStrictEqual(ended.map(({ name, ok }) => [name, ok]), [["postcopy.connect", true], [
        "postcopy.migration",
        false
      ]])
    }))

  it.effect("gives every log line in it the migration's id", () =>
    Effect.gen(function*() {
      const lines: Array<{ message: unknown; annotations: Record<string, unknown> }> = []
      const logger = Logger.make(({ fiber, message }) => {
        lines.push({ message, annotations: { ...fiber.getRef(References.CurrentLogAnnotations) } })
      })
      yield* traced(new Timeline(() => 0))(Effect.logInfo("within")).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
      assert.deepStrictEqual(lines.map(({ message }) => message), [["migration begins"], ["within"], [
        "migration completed"
      ]])
      for (const { annotations } of lines) assert.deepStrictEqual(annotations, { migration: "an-id", role: "source" })
    }))
})
