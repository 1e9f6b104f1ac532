/**
 * The entry of the vCPU thread: loads the guest module here, where its code runs, and obeys the main thread. Commands
 * that change the guest are carried out one after the other; a pause that waits for the guest to settle does not hold
 * up the `run` that undoes it. There is no Effect in this thread: it starts quickly, and a page fault stops all of it.
 */
import { isMainThread, type MessagePort, parentPort, workerData } from "node:worker_threads"
import * as Binding from "../native/Binding.ts"
import * as GuestFailure from "./GuestFailure.ts"
import type { LoadedGuest } from "./GuestModule.ts"
import * as GuestModule from "./GuestModule.ts"
import { SliceLoop } from "./SliceLoop.ts"
import * as SliceRehearsal from "./SliceRehearsal.ts"
import type { FromThread, Replies, ToThread, VcpuData } from "./VcpuMessages.ts"

const serve = (port: MessagePort, guest: LoadedGuest, attentionWord: Int32Array) => {
  const post = (message: FromThread) => port.postMessage(message)
  let received = 0
  const loop = new SliceLoop({
    guest,
    attention: () => Atomics.load(attentionWord, 0) !== received,
    onFirstStep: (nanos) => post({ _tag: "firstStep", nanos }),
    onCrash: (failure) => post({ _tag: "crashed", failure: GuestFailure.toMessage(failure) })
  })
  const reply = (id: number, value: unknown) => post({ _tag: "reply", id, value })
  const refuse = (id: number, error: unknown) => {
    const failure = GuestFailure.from("thread", "the vCPU thread failed", error)
    post({ _tag: "refused", id, failure: GuestFailure.toMessage(failure) })
  }

  const obey = async (message: Exclude<ToThread, { readonly _tag: "call" | "abandon" | "stop" }>) => {
    const { id } = message
    switch (message._tag) {
      case "start":
        await loop.start()
        return reply(id, undefined)
      case "restore":
        await loop.restore(message.state)
        return reply(id, undefined)
      case "run":
        loop.run()
        return reply(id, undefined)
      case "pause":
        return loop.pause({
          paused: (value) => reply(id, value),
          abandoned: () => refuse(id, new GuestFailure.GuestFailure("thread", "the guest was told to run on"))
        })
      case "measure":
        return reply(id, guest.blocks.list() satisfies Replies["measure"])
      case "capture": {
        const state = await loop.capture()
        return reply(id, { state, blocks: guest.blocks.list() } satisfies Replies["capture"])
      }
      case "grow": {
        loop.expectStill()
        try {
          const block = await guest.grow(message.idstr, message.bytes)
          return reply(id, { block, blocks: guest.blocks.list() } satisfies Replies["grow"])
        } catch (error) {
          throw GuestFailure.from("grow", `${message.idstr} cannot grow to ${message.bytes} bytes`, error)
        }
      }
    }
  }

  let tail = Promise.resolve()
  port.on("message", (message: ToThread) => {
    received = (received + 1) | 0
    switch (message._tag) {
      case "call":
        return loop.call({
          id: message.id,
          request: message.request,
          answered: (answer) => reply(message.id, answer),
          refused: (failure) => refuse(message.id, failure)
        })
      case "abandon":
        return loop.abandon(message.id)
      case "stop":
        return process.exit(0)
      default:
        tail = tail.then(() => obey(message)).catch((error: unknown) => refuse(message.id, error))
    }
  })
}

const main = async (port: MessagePort, data: VcpuData) => {
  const stopEarly = (message: ToThread) => message._tag === "stop" && process.exit(0)
  port.on("message", stopEarly)
  // What a guest prints must not get between the lines of a command's --json. Done here: a stdout that the main thread
  // reads itself would hold the process open for as long as this thread lives.
  process.stdout.write = process.stderr.write.bind(process.stderr)
  try {
    const guest = await GuestModule.load(data.module, {
      addon: data.addon ? Binding.load() : undefined,
      memoryMiB: data.memoryMiB,
      onDiscard: (idstr, offset, length) => {
        port.postMessage({ _tag: "discard", idstr, offset, length } satisfies FromThread)
      }
    })
    await SliceRehearsal.rehearse()
    port.off("message", stopEarly)
    serve(port, guest, new Int32Array(data.attention))
    port.postMessage({ _tag: "loaded", kind: guest.kind, blocks: guest.blocks.list() } satisfies FromThread)
  } catch (error) {
    const failure = GuestFailure.from("load", "the guest cannot be loaded", error)
    port.postMessage({ _tag: "crashed", failure: GuestFailure.toMessage(failure) } satisfies FromThread)
  }
}

if (!isMainThread && parentPort !== null) await main(parentPort, workerData as VcpuData)
