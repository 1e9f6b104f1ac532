/**
 * SQLite behind an HTTP endpoint that keeps answering while it moves. Both processes run this program:
 *
 *   node server.ts source      8080                            starts the database
 *   node server.ts destination 8081 tcp:127.0.0.1:4444         waits for it
 *   curl localhost:8080/move -d '{"to": "tcp:127.0.0.1:4444", "http": "http://127.0.0.1:8081"}'
 *
 * POST /query takes `{"sql": …, "params": […]}`. A client goes on asking the first process: what comes while the database
 * moves waits for milliseconds, what comes later is passed on to the second, whose pages arrive as they are touched.
 */
import { Deferred, Effect, Schema } from "effect"
import { createServer, type IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"
import { Guest, type GuestHandle, listen, migrate, MigrationError } from "postcopy"

const [role, port, from = ""] = process.argv.slice(2)

const bodyOf = async (request: IncomingMessage) => {
  let text = ""
  for await (const chunk of request) text += chunk
  return JSON.parse(text)
}

const Move = Schema.Struct({ to: Schema.String, http: Schema.String })

const program = Effect.gen(function*() {
  const arrived = yield* Deferred.make<GuestHandle>()
  /** Where the database is, once it has left. */
  let movedTo: string | undefined

  const query = (body: unknown): Effect.Effect<unknown, unknown> =>
    Effect.flatMap(Deferred.await(arrived), (guest) => guest.call(body)).pipe(
      Effect.catchIf(
        // The one answer that says that this process will never have the guest again.
        (error) => error instanceof MigrationError && movedTo !== undefined,
        () =>
          Effect.promise(async () => {
            const passedOn = await fetch(`${movedTo}/query`, { method: "POST", body: JSON.stringify(body) })
            return passedOn.json()
          })
      )
    )

  const move = (body: unknown) =>
    Effect.gen(function*() {
      const { http, to } = yield* Schema.decodeUnknownEffect(Move)(body)
      movedTo = http
      // When it fails before the switchover the database has never left.
      const stays = Effect.sync(() => void (movedTo = undefined))
      return yield* migrate({ guest: yield* Deferred.await(arrived), to }).pipe(
        Effect.tapError((error) => error.guest === "source" ? stays : Effect.void)
      )
    })

  const services = yield* Effect.context<never>()
  const answer = (path: string, body: unknown) => path === "/move" ? move(body) : query(body)
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request)
    const result = await Effect.runPromiseWith(services)(Effect.result(answer(request.url ?? "", body)))
    response.writeHead(result._tag === "Success" ? 200 : 500, { "content-type": "application/json" })
    response.end(JSON.stringify(result._tag === "Success" ? result.success : { error: String(result.failure) }))
  })
  yield* Effect.callback<void>((resume) => void server.listen(Number(port), "127.0.0.1", () => resume(Effect.void)))
  const ready = Effect.sync(() =>
    console.log(JSON.stringify({ http: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }))
  )

  if (role === "source") {
    yield* Deferred.succeed(arrived, yield* Guest.run("sqlite", { memoryMiB: 64 }))
    yield* ready
  } else {
    const { guest, report, running } = yield* listen({ guest: "sqlite", from, options: { memoryMiB: 64 } })
    yield* ready
    yield* running
    yield* Deferred.succeed(arrived, guest)
    console.log(JSON.stringify(yield* report))
  }
  return yield* Effect.never
})

process.on("SIGTERM", () => process.exit())
await Effect.runPromise(Effect.scoped(program))
