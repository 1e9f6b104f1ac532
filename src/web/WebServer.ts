/**
 * Serves the live page: the page itself, pictures as server-sent events, and requests to change something.
 *
 *   GET /            the page; with ?key=… it has controls
 *   GET /events      `picture` events, at most ten a second
 *   POST /control    {"action": …}, with the key in a header
 *
 * It listens on the loopback interface unless it is told otherwise, answers only to the names it is reached by there (a
 * page of some other site cannot make itself one of ours), and changes nothing without the key of the URL that was printed:
 * every user of this host can reach the port.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomBytes, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"
import * as Page from "./Page.ts"
import type { Recorder } from "./Recorder.ts"

/** What the page may ask for. */
export type Action =
  | { readonly action: "bandwidth"; readonly bytesPerSecond: number | null }
  | { readonly action: "background"; readonly on: boolean }
  | { readonly action: "cancel" }

export interface Options {
  readonly host: string
  readonly port: number
  readonly recorder: Recorder
  readonly title: string
  readonly about: Page.PageData["about"]
  /** Carries it out and says in words what came of it; undefined: nothing can be changed from here. */
  readonly act: ((action: Action) => Effect.Effect<string>) | undefined
}

export interface Served {
  /** With the key: whoever has it may change things. */
  readonly url: string
}

/** Bytes of a request; actions are small. */
const MOST_BYTES = 1024

const loopback = ["127.0.0.1", "::1", "localhost"]

const isSame = (given: string | undefined, key: string) =>
  given !== undefined && given.length === key.length && timingSafeEqual(Buffer.from(given), Buffer.from(key))

const actionOf = (text: string): Action | undefined => {
  try {
    const { action, bytesPerSecond, on } = Object(JSON.parse(text)) as Record<string, unknown>
    if (action === "cancel") return { action }
    if (action === "background" && typeof on === "boolean") return { action, on }
    const isRate = bytesPerSecond === null || typeof bytesPerSecond === "number" && bytesPerSecond >= 1
    if (action === "bandwidth" && isRate) return { action, bytesPerSecond }
  } catch {
    // not JSON
  }
  return undefined
}

const plain = (status: number, text: string) => HttpServerResponse.text(`${text}\n`, { status })

const said = (status: number, message: string) => HttpServerResponse.jsonUnsafe({ message }, { status })

const headers = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY"
}

/** Where HOST:PORT is bound; fails with the system's error. */
export const serve = Effect.fnUntraced(
  function*(options: Options): Effect.fn.Return<Served, NodeJS.ErrnoException, Scope.Scope> {
    const { about, act, host, recorder, title } = options
    const key = randomBytes(18).toString("base64url")
    const isLocal = loopback.includes(host)
    const server = yield* NodeHttpServer.make(createServer, {
      host,
      port: options.port,
      gracefulShutdownTimeout: "2 seconds"
    }).pipe(Effect.mapError((error) => error.cause as NodeJS.ErrnoException))

    const page = (token: string | null) =>
      HttpServerResponse.html(Page.render({
        mode: "live",
        title,
        picture: recorder.latest(),
        samples: recorder.samples(),
        about,
        ...(isSame(token ?? undefined, key) && act !== undefined ? { token: key } : {})
      }))

    const events = recorder.pictures.pipe(
      Stream.map((picture) => `event: picture\ndata: ${JSON.stringify(picture)}\n\n`),
      Stream.encodeText
    )

    const control = Effect.fnUntraced(function*(request: HttpServerRequest.HttpServerRequest) {
      if (!isSame(request.headers["x-postcopy-token"], key)) {
        return said(403, "open the URL that was printed: it has the key")
      }
      if (Number(request.headers["content-length"] ?? Infinity) > MOST_BYTES) return said(413, "too long")
      const action = actionOf(yield* request.text)
      if (action === undefined || act === undefined) return said(400, "that cannot be asked for")
      return said(200, yield* act(action))
    })

    const isOurs = (name: string | undefined) =>
      !isLocal || name !== undefined && loopback.includes(name.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"))

    yield* server.serve(
      Effect.gen(function*() {
        const request = yield* HttpServerRequest.HttpServerRequest
        if (!isOurs(request.headers["host"])) return plain(421, "this is not a name of this server")
        const url = new URL(request.url, "http://host")
        switch (`${request.method} ${url.pathname}`) {
          case "GET /":
            return page(url.searchParams.get("key"))
          case "GET /events":
            return HttpServerResponse.stream(events, { contentType: "text/event-stream" })
          case "POST /control":
            return yield* control(request)
          default:
            return plain(404, "there is nothing here; the page is at /")
        }
      }).pipe(
        Effect.map(HttpServerResponse.setHeaders(headers)),
        Effect.catchCause(() => Effect.succeed(plain(500, "that did not work")))
      )
    )
    const { port } = server.address as { readonly port: number }
    return { url: `http://${host.includes(":") ? `[${host}]` : host}:${port}/?key=${key}` }
  }
)
