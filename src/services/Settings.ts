/** Bounds in time and size that a migration keeps to. A reference: nothing has to be provided, a layer can replace it. */
import * as Context from "effect/Context"

export interface SettingsShape {
  /** How long a paused guest's slice and calls in flight may take to settle. Milliseconds. */
  readonly settleMillis: number
  /** How long the bytes before the switchover may take to be taken by the peer. Milliseconds. */
  readonly drainMillis: number
  /**
   * How long the guest runs on after the block list was sent, so that a destination that refuses it is heard before the
   * switchover. Only where the link cannot tell what the destination has read. Milliseconds.
   */
  readonly objectionMillis: number
  /** How long the umem daemon may take to start, and each handshake with it. Milliseconds. */
  readonly handshakeMillis: number
  /** How long the last bytes may take after the peer's end marker. Milliseconds. */
  readonly goodbyeMillis: number
  /** Silence of the source, with pages outstanding, that is reported as `stalled`. Milliseconds. */
  readonly stalledMillis: number
  /** How long the report of a guest that is here whole waits for its first step or call. Milliseconds. */
  readonly firstStepMillis: number
  /** How long a TCP or unix connect may take. Milliseconds. */
  readonly connectMillis: number
  /** Test hook: the byte at this offset of what the source's link writes is flipped. */
  readonly flipByteAt: number | undefined
}

const flip = process.env["POSTCOPY_TEST_FLIP_BYTE"]

export const defaults: SettingsShape = {
  settleMillis: 10_000,
  drainMillis: 10_000,
  objectionMillis: 50,
  handshakeMillis: 10_000,
  goodbyeMillis: 5_000,
  stalledMillis: 2_000,
  firstStepMillis: 100,
  connectMillis: 10_000,
  flipByteAt: flip === undefined || flip === "" ? undefined : Number(flip)
}

export const Settings: Context.Reference<SettingsShape> = Context.Reference("postcopy/services/Settings", {
  defaultValue: () => defaults
})
