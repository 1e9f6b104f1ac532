/**
 * An error on its way out of the vCPU thread: the phase, one sentence, and the stack of what the guest threw. The
 * thread has no Effect in it; the main thread turns this into a `GuestError`.
 */
import type { Phase } from "./GuestError.ts"
import type { Failure } from "./VcpuMessages.ts"

export class GuestFailure extends Error {
  readonly phase: Phase
  readonly trace: string | undefined

  constructor(phase: Phase, message: string, trace?: string) {
    super(message)
    this.phase = phase
    this.trace = trace
  }
}

/** One line about anything that can be thrown. */
export const describe = (thrown: unknown): string => {
  if (thrown instanceof Error) return thrown.message === "" ? thrown.name : thrown.message
  if (typeof thrown === "string") return thrown
  try {
    return JSON.stringify(thrown) ?? String(thrown)
  } catch {
    return String(thrown)
  }
}

/** Whatever was thrown, as a failure of `phase`; one that already knows its phase keeps it. */
export const from = (phase: Phase, prefix: string, thrown: unknown): GuestFailure =>
  thrown instanceof GuestFailure
    ? thrown
    : new GuestFailure(phase, `${prefix}: ${describe(thrown)}`, thrown instanceof Error ? thrown.stack : undefined)

/** As it is posted. */
export const toMessage = (failure: GuestFailure): Failure => ({
  phase: failure.phase,
  message: failure.message,
  ...(failure.trace === undefined ? {} : { trace: failure.trace })
})
