/**
 * A client of QEMU's monitor protocol (QMP): one JSON object a line, replies matched by id, events kept apart. It runs on
 * a raw link, so that a descriptor can travel with a command (`getfd`): a migration then needs no path that both
 * processes can reach. What the monitor says is checked, never trusted with a size or a shape.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Descriptor } from "userfaultfd-napi"
import { LinkFailed, Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import { errnoName } from "../native/Errno.ts"
import { AGAIN, type Link } from "../services/Link.ts"
import * as LinkIo from "../services/LinkIo.ts"
import { Links } from "../services/Links.ts"
import { type QemuReason, QmpFailed } from "./QemuError.ts"

/** A line of the monitor, at most: `query-*` answers are far below. */
const MAX_LINE = 16 * 1024 * 1024
const GREETING_MILLIS = 5_000
/** Commands are answered at once, but for a monitor whose main loop waits for a page. */
const REPLY_MILLIS = 30_000

export type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [name: string]: Json }
export type Arguments = { readonly [name: string]: Json }

export interface QmpClient {
  readonly execute: (command: string, args?: Arguments) => Effect.Effect<Json, QemuReason>
  /** Gives QEMU a descriptor under a name; ours is closed. */
  readonly giveDescriptor: (name: string, descriptor: Descriptor) => Effect.Effect<void, QemuReason>
  /** `7.2.22`. */
  readonly version: string
}

/** A member of what should be an object; `undefined` when it is none or has none. */
export const member = (value: Json | undefined, name: string): Json | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as { readonly [name: string]: Json })[name]
    : undefined

export const text = (value: Json | undefined): string => typeof value === "string" ? value : ""
export const number = (value: Json | undefined): number => typeof value === "number" ? value : 0
export const items = (value: Json | undefined): ReadonlyArray<Json> =>
  Array.isArray(value) ? value as ReadonlyArray<Json> : []

/** A monitor's address: a path, `unix:PATH` or `tcp:HOST:PORT`. */
export const addressOf = (qmp: string): string => /^(unix|tcp|fd):/.test(qmp) ? qmp : `unix:${qmp}`

interface Waiting {
  readonly command: string
  readonly reply: Deferred.Deferred<Json, QemuReason>
}

/** What arrives on the link, until it ends. */
const listen = (link: Link, where: string) => {
  const waiting = new Map<number, Waiting>()
  const greeting = Deferred.makeUnsafe<Json, QemuReason>()
  const decoder = new TextDecoder()
  const buffer = new Uint8Array(65536)
  let pending = ""
  let broken: QemuReason | undefined

  const fail = (reason: QemuReason) => {
    broken ??= reason
    link.watch(false, false)
    Deferred.doneUnsafe(greeting, Effect.fail(reason))
    for (const { reply } of waiting.values()) Deferred.doneUnsafe(reply, Effect.fail(reason))
    waiting.clear()
  }
  const take = (line: string) => {
    let message: Json
    try {
      message = JSON.parse(line) as Json
    } catch {
      return fail(
        new QmpFailed({ command: "", detail: `the monitor at ${where} says what is no JSON: is this a QMP socket?` })
      )
    }
    const hello = member(message, "QMP")
    if (hello !== undefined) return void Deferred.doneUnsafe(greeting, Effect.succeed(hello))
    const id = member(message, "id")
    const one = typeof id === "number" ? waiting.get(id) : undefined
    if (one === undefined) return
    waiting.delete(id as number)
    const error = member(message, "error")
    Deferred.doneUnsafe(
      one.reply,
      error === undefined
        ? Effect.succeed(member(message, "return") ?? null)
        : Effect.fail(
          new QmpFailed({ command: one.command, detail: `QEMU refuses ${one.command}: ${text(member(error, "desc"))}` })
        )
    )
  }
  const read = () => {
    while (broken === undefined) {
      const n = link.read(buffer, 0, buffer.length)
      if (n === AGAIN) return
      if (n <= 0) {
        const code = n === 0 ? "EOF" : errnoName(-n)
        return fail(new LinkFailed({ code, detail: `the monitor at ${where} closed the connection (${code})` }))
      }
      pending += decoder.decode(buffer.subarray(0, n), { stream: true })
      const lines = pending.split("\n")
      pending = lines.pop()!
      if (pending.length > MAX_LINE) {
        return fail(new QmpFailed({ command: "", detail: `the monitor at ${where} sends a line without end` }))
      }
      for (const line of lines) if (line.trim() !== "" && broken === undefined) take(line)
    }
  }
  return { waiting, greeting, read, fail, broken: () => broken }
}

/** Connects and negotiates. Closing the scope closes the connection; what was asked of QEMU goes on. */
export const connect = (qmp: string): Effect.Effect<QmpClient, QemuReason, Scope.Scope> =>
  Effect.gen(function*() {
    const where = addressOf(qmp)
    const links = yield* Links
    const link = yield* Effect.acquireRelease(links.connect(where), (one) => Effect.sync(() => one.close()))
    const { broken, fail, greeting, read, waiting } = listen(link, where)
    const timed = <A>(effect: Effect.Effect<A, QemuReason>, millis: number, detail: string) =>
      Effect.timeoutOrElse(effect, {
        duration: millis,
        orElse: () => Effect.fail(new LinkFailed({ code: "TIMEOUT", detail }))
      })
    let nextId = 1

    /** Sends a command; `deliver` puts its bytes, and whatever travels with them, on the link. */
    const ask = (
      command: string,
      args: Arguments | undefined,
      deliver: (bytes: Uint8Array) => Effect.Effect<void, QemuReason>
    ) =>
      Effect.gen(function*() {
        const already = broken()
        if (already !== undefined) return yield* already
        const id = nextId++
        const reply = Deferred.makeUnsafe<Json, QemuReason>()
        waiting.set(id, { command, reply })
        yield* deliver(new TextEncoder().encode(`${JSON.stringify({ execute: command, arguments: args ?? {}, id })}\n`))
        link.attach(read)
        link.watch(true, false)
        return yield* timed(
          Deferred.await(reply),
          REPLY_MILLIS,
          `the monitor at ${where} did not answer ${command} within ${REPLY_MILLIS / 1000} s`
        )
      })

    link.attach(read)
    link.watch(true, false)
    const hello = yield* timed(
      Deferred.await(greeting),
      GREETING_MILLIS,
      `the monitor at ${where} does not greet: another client may hold it, or it is no QMP socket`
    )
    const version = member(member(hello, "version"), "qemu")
    const client: QmpClient = {
      version: ["major", "minor", "micro"].map((part) => number(member(version, part))).join("."),
      execute: (command, args) => ask(command, args, (bytes) => LinkIo.writeAll(link, bytes)),
      giveDescriptor: (name, descriptor) =>
        Effect.gen(function*() {
          const addon = Binding.load()
          if (addon === undefined || link.descriptor === undefined) {
            return yield* new Unsupported({ detail: `descriptors cannot be given to QEMU here: ${Binding.failure()}` })
          }
          const socket = link.descriptor
          yield* ask("getfd", { fdname: name }, (bytes) =>
            Effect.suspend(() => {
              const n = addon.sendDescriptors(socket, bytes, [descriptor])
              // The descriptor travels with the first byte; a short write leaves only bytes to be sent.
              if (n > 0) return LinkIo.writeAll(link, bytes.subarray(n))
              return Effect.fail(
                new LinkFailed({ code: errnoName(-n), detail: `cannot send a descriptor to ${where}` })
              )
            }))
        }).pipe(Effect.ensuring(Effect.sync(() => descriptor.close())))
    }
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => fail(new LinkFailed({ code: "ECANCELED", detail: "the monitor is not used any more" })))
    )
    yield* client.execute("qmp_capabilities")
    return client
  })
