/**
 * Waiting for the next event without sleeping: after a page fault the peer's answer, and then the guest's next fault, come
 * sooner than a sleeping process is woken up. It yields between two looks and backs off: when others want the CPU, or when
 * nothing came, the next waits are left out, twice as many each time. A wait that is left out, or where none is wanted,
 * sleeps instead, within the same call: woken up there, a fault needs no event loop and no JavaScript that the caches have
 * lost meanwhile.
 *
 * Hot path: no Effect per page.
 */
import type { Descriptor } from "userfaultfd-napi"
import type { Addon } from "../native/Binding.ts"

/** How long one wait lasts at most, unless configured. Microseconds: some times what a page takes over a local link. */
export const DEFAULT_MICROS = 50
/** The most that can be configured: the event loop stands still meanwhile. */
export const MAX_MICROS = 1000
/** How long a turn of the event loop may be drawn out by waits: timers and the control plane get theirs. Milliseconds. */
const TURN_MILLIS = 1
/** Waits left out in a row, at most: after waits in vain, and after waits that others paid for, a few milliseconds each. */
const MOST_SKIPPED = 64
const MOST_SKIPPED_CONTENDED = 1024
/** How long a sleeping wait lasts at most, nanoseconds: everything else of the event loop waits meanwhile. */
const SLEEP_NANOS = 1_000_000
/** Waits in vain that are no reason to back off: a guest that computes between two faults is one. */
const PATIENCE = 4

/** `Dealt`: something came, and has been dealt with. */
export const Ready = { Nothing: 0, First: 1, Second: 2, Dealt: 8 } as const
const CONTENDED = 4

/**
 * Waits at most so many nanoseconds, below 0 asleep, for what it deals with itself: `Ready.Dealt` or `Nothing`, and the bit of contention;
 * `undefined` when this is no time for it.
 */
export type Quick = (nanos: number) => number | undefined

/**
 * Waits for what it was made for, by `quick` where that is possible; which of them is ready ({@link Ready}, as bits),
 * `Nothing` when it is time to sleep.
 */
export type BusyPoll = (wantsWritable?: boolean, quick?: Quick) => number

/** Waits asleep, where `quick` is possible. */
const asleep: BusyPoll = (_wantsWritable, quick) => (quick?.(-SLEEP_NANOS) ?? Ready.Nothing) & Ready.Dealt

/** The backing off alone: over `look`, which waits once. */
export const backingOff = (look: BusyPoll): BusyPoll => {
  let skip = 0
  let penalty = 0
  let vain = 0
  const backOff = (most: number) => {
    penalty = Math.max(penalty, Math.min(most, penalty * 2 + 1))
    skip = penalty
  }
  return (wantsWritable, quick) => {
    if (skip > 0) {
      skip--
      return asleep(wantsWritable, quick)
    }
    const result = look(wantsWritable, quick)
    const ready = result < 0 ? Ready.Nothing : result & (Ready.First | Ready.Second | Ready.Dealt)
    if (result < 0 || (result & CONTENDED) !== 0) backOff(MOST_SKIPPED_CONTENDED)
    else if (ready !== Ready.Nothing) vain = penalty = 0
    else if (++vain > PATIENCE) backOff(MOST_SKIPPED)
    return ready
  }
}

/** Over one or two descriptors, both for reading; the first also for writing where asked. 0 microseconds: always asleep. */
export const make = (
  addon: Addon,
  micros: number,
  first: Descriptor,
  second: Descriptor | null
): BusyPoll => {
  if (micros === 0) return asleep
  const { READABLE, WRITABLE } = addon.constants
  const nanos = micros * 1000
  return backingOff((wantsWritable, quick) =>
    quick?.(nanos) ??
      addon.busyPoll(first, wantsWritable === true ? READABLE | WRITABLE : READABLE, second, READABLE, nanos)
  )
}

export interface Lingering {
  readonly busyPoll: BusyPoll
  readonly quick?: Quick
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
  /** When, by that clock, the last event came after which others are near. */
  readonly since: () => number
  /** Whether there is anything to wait for. */
  readonly active: () => boolean
  /** Whether writing is waited for, too. */
  readonly wantsWritable?: () => boolean
  /** Does what a readiness callback would do. */
  readonly act: (ready: number) => void
}

/** For how long after an event another one may be near. Milliseconds: a page takes a fraction over a local link. */
const LINGER_MILLIS = 1

/**
 * To be called at the end of a readiness callback: waits for what comes next without sleeping, in turns, between which the
 * event loop gets its own. What is left when it gives up, the event loop's poll finds.
 */
export const lingering = ({ act, active, busyPoll, now, quick, since, wantsWritable }: Lingering): () => void => {
  let immediate = false
  const turn = () => {
    const begun = now()
    for (let at = begun; active() && at - since() < LINGER_MILLIS; at = now()) {
      if (at - begun > TURN_MILLIS) {
        immediate = true
        setImmediate(again)
        return
      }
      const ready = busyPoll(wantsWritable?.(), quick)
      if (ready === Ready.Nothing) return
      if (ready !== Ready.Dealt) act(ready)
    }
  }
  const again = () => {
    immediate = false
    turn()
  }
  return () => {
    if (!immediate) turn()
  }
}
