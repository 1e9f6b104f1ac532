/**
 * Captures a running virtual machine into an image, as the destination of a migration that its own QEMU makes.
 *
 *   stop ─▶ migrate (precopy) ─▶ image on disk ─▶ SHUT 0 ─▶ completed [─▶ cont]           as a rule
 *   migrate (background-snapshot), the guest runs on ─▶ completed ─▶ image on disk        live
 *
 * Whatever fails before QEMU has said `completed`, the migration is taken back and a guest that ran runs on. QEMU says
 * it only once the image is on disk.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { LinkFailed, MalformedInput, Refused, Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import * as ReturnPath from "../protocol/qemu/ReturnPath.ts"
import * as StreamDecoder from "../protocol/qemu/StreamDecoder.ts"
import type { Link } from "../services/Link.ts"
import * as LinkIo from "../services/LinkIo.ts"
import * as NativeLink from "../services/NativeLink.ts"
import * as ImageReceiver from "./ImageReceiver.ts"
import * as ImageWriter from "./ImageWriter.ts"
import type { Manifest } from "./Manifest.ts"
import * as Monitor from "./Monitor.ts"
import { ImageFailed, type QemuReason, QmpFailed } from "./QemuError.ts"
import * as QmpClient from "./QmpClient.ts"

export interface Options {
  readonly qmp: string
  readonly image: string
  /** A guest that runs runs on while it is captured; one that does not stays as it is. */
  readonly live: boolean
  /** Lets the guest run once it is captured. */
  readonly resume: boolean
  /** Bytes a second; `undefined` = unlimited. */
  readonly maxBandwidth: number | undefined
  /** Hears how far it is, in pages. */
  readonly onProgress?: (received: number, total: number) => Effect.Effect<void>
}

export interface Saved {
  readonly manifest: Manifest
  readonly bytesReceived: number
  /** Milliseconds in which the guest stood still for it: `null` while it still does, or where it never did. */
  readonly stoppedMs: number | null
  /** State of the guest afterwards, as QEMU names it. */
  readonly guestIs: string
}

/** A limit that is none: bytes a second. */
const UNLIMITED = 2 ** 40
/** Name under which QEMU knows our end of the stream. */
const DESCRIPTOR = "postcopy-save"
const READ_BYTES = 256 * 1024
/** How long QEMU may take to take a migration back. */
const TAKE_BACK_MILLIS = 10_000
/** Pages between two reports of progress. */
const PROGRESS_PAGES = 8192

/** States from which a guest can be captured. */
const capturable = new Set(["running", "paused", "prelaunch", "suspended", "debug"])

/** Gives QEMU one end of a socket pair, and keeps the other. */
const connectPair = Effect.fnUntraced(function*(qmp: QmpClient.QmpClient) {
  const addon = Binding.load()
  if (addon === undefined) {
    return yield* new Unsupported({ detail: `the addon is needed to give QEMU a socket: ${Binding.failure()}` })
  }
  const [ours, theirs] = addon.socketpair(addon.constants.SOCK_STREAM)
  const link = yield* Effect.acquireRelease(
    Effect.sync(() => NativeLink.fromDescriptor(addon, ours, "QEMU")),
    (one) => Effect.sync(() => one.close())
  )
  // QEMU's migration thread writes blocking; whose end it is decides for itself.
  addon.setNonBlocking(theirs, false)
  yield* qmp.giveDescriptor(DESCRIPTOR, theirs)
  return link
})

/** What `take` and `flush` of the receiver throw, as reasons. */
const reasonOf = (path: string) => (error: unknown): QemuReason => {
  if (error instanceof MalformedInput) return error
  const { code, message } = error as NodeJS.ErrnoException
  return new ImageFailed({
    kind: "unwritable",
    path,
    detail: `cannot write the image ${path} (${code ?? message}); give it a place with room`
  })
}

/** Reads the stream to its end; bytes read. */
const receive = Effect.fnUntraced(function*(link: Link, receiver: ImageReceiver.ImageReceiver, options: Options) {
  const decoder = StreamDecoder.decoder()
  const buffer = new Uint8Array(READ_BYTES)
  let bytes = 0
  let told = 0
  const refuse = (offset: number, detail: string) => new MalformedInput({ offset, detail })
  while (true) {
    const n = yield* LinkIo.readSome(link, buffer)
    bytes += n
    if (n === 0) decoder.finish()
    else decoder.push(buffer.subarray(0, n))
    const outcome = yield* Effect.try({
      try: () => {
        let one = decoder.next()
        for (; one._tag === "Message"; one = decoder.next()) receiver.take(one.message)
        receiver.flush()
        return one
      },
      catch: reasonOf(options.image)
    })
    if (outcome._tag === "Malformed") {
      return yield* outcome.truncated
        ? new LinkFailed({ code: "EOF", detail: `QEMU ended its migration early, after ${bytes} bytes` })
        : refuse(outcome.offset, `QEMU's stream is not understood: ${outcome.message} (byte ${outcome.offset})`)
    }
    if (outcome._tag === "End" || (n > 0 && receiver.progress().ended && receiver.progress().returnPath)) return bytes
    const { received, total } = receiver.progress()
    if (options.onProgress !== undefined && received - told >= PROGRESS_PAGES) {
      told = received
      yield* options.onProgress(received, total)
    }
  }
})

/** Takes an unfinished migration back and lets a guest that ran run on. Never fails: it is what failure leads to. */
const takeBack = (qmp: QmpClient.QmpClient, wasRunning: boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { status } = yield* Monitor.migration(qmp)
    if (status === "active" || status === "setup" || status === "device" || status === "wait-unplug") {
      yield* qmp.execute("migrate_cancel")
      yield* Monitor.ended(qmp)
    }
    if (wasRunning && (yield* Monitor.runState(qmp)) !== "running") yield* qmp.execute("cont")
  }).pipe(Effect.timeoutOption(TAKE_BACK_MILLIS), Effect.ignore)

/** Sets what the capture needs and puts it back at the end of the scope. */
const prepared = Effect.fnUntraced(
  function*(qmp: QmpClient.QmpClient, wanted: ReadonlyArray<string>, options: Options) {
    const capabilities = yield* Monitor.capabilities(qmp)
    const bandwidth = yield* Monitor.maxBandwidth(qmp)
    yield* Effect.addFinalizer(() =>
      Effect.gen(function*() {
        yield* Monitor.setCapabilities(qmp, yield* Monitor.capabilities(qmp), capabilities)
        yield* Monitor.setMaxBandwidth(qmp, bandwidth)
      }).pipe(Effect.timeoutOption(TAKE_BACK_MILLIS), Effect.ignore)
    )
    yield* Monitor.setCapabilities(qmp, capabilities, Monitor.only(capabilities, wanted))
    yield* Monitor.setMaxBandwidth(qmp, options.maxBandwidth ?? UNLIMITED)
  }
)

const captured = (options: Options): Effect.Effect<Saved, QemuReason, Scope.Scope> =>
  Effect.gen(function*() {
    const writer = yield* ImageWriter.make(options.image)
    const qmp = yield* QmpClient.connect(options.qmp)
    const guestWas = yield* Monitor.runState(qmp)
    if (!capturable.has(guestWas)) {
      return yield* new Refused({
        detail: guestWas === "postmigrate"
          ? "the guest stands still since it was captured or migrated (postmigrate), and QEMU migrates none that " +
            "may run elsewhere by now: the image made of it then is what it is; to capture it later, let it run on " +
            "(QMP cont)"
          : `the guest is ${guestWas}: it cannot be captured now`
      })
    }
    const vcpus = yield* Monitor.vcpus(qmp)
    const pageSizes = yield* Monitor.pageSizes(qmp)
    const wasRunning = guestWas === "running"
    // QEMU starts every guest that it snapshots in the background, also one that stood still before.
    const live = options.live && wasRunning
    const wanted = live ? ["background-snapshot"] : ["return-path"]
    yield* prepared(qmp, wanted, options)
    const receiver = ImageReceiver.make(writer, pageSizes)
    const link = yield* connectPair(qmp)
    const about = {
      qemu: qmp.version,
      vcpus,
      captured: live ? "live" : "paused",
      guestWas,
      capabilities: wanted
    } as const
    const stoppedAt = performance.now()
    return yield* Effect.gen(function*() {
      if (!live && wasRunning) yield* qmp.execute("stop")
      yield* qmp.execute("migrate", { uri: `fd:${DESCRIPTOR}` })
      const bytesReceived = yield* receive(link, receiver, options).pipe(
        Effect.catchTag("LinkFailed", (broken) => explained(qmp, broken))
      )
      // With a return path QEMU waits for this side's word before it calls itself done, else it has the first one.
      const waits = receiver.progress().returnPath
      if (!waits) yield* completed(qmp)
      const manifest = yield* receiver.commit(about)
      if (waits) {
        yield* LinkIo.writeAll(link, ReturnPath.shut(0))
        yield* completed(qmp)
      }
      if (options.resume && !options.live) yield* qmp.execute("cont")
      const guestIs = yield* Monitor.runState(qmp)
      const stood = !live && wasRunning && guestIs === "running"
      return { manifest, bytesReceived, stoppedMs: stood ? performance.now() - stoppedAt : null, guestIs }
    }).pipe(
      Effect.onExit((exit) => Exit.isFailure(exit) ? takeBack(qmp, wasRunning) : Effect.void)
    )
  })

const completed = (qmp: QmpClient.QmpClient): Effect.Effect<void, QemuReason> =>
  Effect.flatMap(Monitor.ended(qmp), ({ error, status }) =>
    status === "completed" ? Effect.void : Effect.fail(
      new QmpFailed({ command: "migrate", detail: `QEMU's migration ${status}: ${error || "it gives no reason"}` })
    ))

/** A stream that ended early is QEMU's failure: its monitor knows the reason. */
const explained = (qmp: QmpClient.QmpClient, broken: LinkFailed): Effect.Effect<never, QemuReason> =>
  Effect.gen(function*() {
    const { error, status } = yield* Monitor.migration(qmp)
    if (error === "") return yield* broken
    return yield* new QmpFailed({ command: "migrate", detail: `QEMU's migration ${status}: ${error}` })
  })

/** Captures; interrupted, it takes everything back first. */
export const save = (options: Options): Effect.Effect<Saved, QemuReason> => Effect.scoped(captured(options))
