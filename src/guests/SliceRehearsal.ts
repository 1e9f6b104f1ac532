/**
 * Goes once through everything that a switchover asks of a vCPU thread, on a guest of nothing: code that runs for the
 * first time costs a millisecond here and there, which is downtime when the real guest waits for it.
 */
import type { GuestFailure } from "./GuestFailure.ts"
import type { LoadedGuest } from "./GuestModule.ts"
import { SliceLoop } from "./SliceLoop.ts"

const nothing = (): void => {}

/** A guest without memory, which rests between its slices and answers calls. */
const guest: LoadedGuest = {
  kind: "memory",
  blocks: {
    idstrs: [],
    list: () => [],
    view: () => new Uint8Array(0),
    release: nothing,
    stageIn: nothing,
    stageOut: nothing
  },
  start: nothing,
  step: () => ({ restMillis: 0 }),
  call: (request: unknown) => request,
  save: () => Promise.resolve(new Uint8Array(1)),
  restore: nothing,
  grow: () => Promise.reject(new Error("it has no memory"))
}

/** One guest's life: enters by `phase`, makes a slice, answers a call, pauses, is captured. */
const life = async (enter: (loop: SliceLoop) => Promise<void>): Promise<Uint8Array> => {
  const { promise: stepped, resolve } = Promise.withResolvers<bigint>()
  const { promise: lost, reject } = Promise.withResolvers<never>()
  const loop = new SliceLoop({ guest, attention: () => false, onFirstStep: resolve, onCrash: reject })
  await enter(loop)
  await Promise.race([stepped, lost])
  await new Promise<string>((answered, refused: (failure: GuestFailure) => void) =>
    loop.call({ id: 0, request: "null", answered, refused })
  )
  await new Promise((paused) => loop.pause({ paused, abandoned: nothing }))
  return loop.capture()
}

/** The source's part, then the destination's. */
export const rehearse = async (): Promise<void> => {
  const state = await life((loop) => loop.start())
  await life((loop) => loop.restore(state))
}
