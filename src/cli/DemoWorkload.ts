/**
 * What the demo asks its guests, and how it knows that they arrived whole. The SQLite guest must give the same hash over
 * all rows and a clean integrity check on both sides; the counter guest verifies its own pattern, over all of its memory,
 * and must have gone on counting.
 */
import * as Effect from "effect/Effect"
import type { Failure } from "./Failure.ts"

type Answer = Readonly<Record<string, unknown>>
type Ask = (request: unknown) => Effect.Effect<Answer, Failure>

/** What was found on one side. */
export interface Evidence {
  /** The contents are whole in themselves. */
  readonly ok: boolean
  /** Equal before and after. */
  readonly fingerprint: string
  /** For people. */
  readonly words: string
}

export interface Workload {
  /** What `run` and `receive` are given. */
  readonly guest: string
  /** A small request, asked again and again. */
  readonly query: unknown
  readonly examine: (ask: Ask) => Effect.Effect<Evidence, Failure>
  /** Touches every page that is still missing. */
  readonly touch: unknown
}

const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."))

const sqlite: Workload = {
  guest: new URL(`./DemoSqlite${extension}`, import.meta.url).href,
  query: { op: "get" },
  examine: (ask) =>
    Effect.gen(function*() {
      const integrity = yield* ask({ op: "integrity" })
      const { hash, rows } = yield* ask({ op: "hash" })
      return {
        ok: integrity["ok"] === true,
        fingerprint: String(hash),
        words: `integrity check ${integrity["ok"] === true ? "ok" : "FAILED"}, ${rows} rows, sha256 ${
          String(hash).slice(0, 16)
        }…`
      }
    }),
  touch: { op: "touch" }
}

const counter: Workload = {
  guest: "counter",
  query: { op: "status" },
  examine: (ask) =>
    Effect.gen(function*() {
      const { badOffset, ok, pages, steps } = yield* ask({ op: "verify" })
      return {
        ok: ok === true,
        fingerprint: String(pages),
        words: ok === true
          ? `${pages} pages of its pattern are right, after ${steps} steps`
          : `the byte at offset ${badOffset} is WRONG`
      }
    }),
  touch: { op: "verify" }
}

export const workloads = { sqlite, counter }
