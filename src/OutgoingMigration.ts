/**
 * The record of one migration that sends a guest: where its state machine is, and what its owner and its guest's handle
 * need to know of each other. The state is what latches the guest: from POSTCOPY on it never runs here again.
 */
import * as Deferred from "effect/Deferred"
import type { SenderProgress } from "./actors/SourceSender.ts"
import type { Reason } from "./MigrationError.ts"
import type { Bitmap } from "./protocol/Bitmap.ts"
import * as MigrationState from "./protocol/umem/MigrationState.ts"
import type { RateLimit } from "./services/RateLimit.ts"

export class OutgoingMigration {
  readonly rate: RateLimit
  /** The migration's id, where the caller has one. */
  readonly id: string | undefined
  /** Completes to stop it before the latch. */
  readonly cancelled: Deferred.Deferred<never, Reason> = Deferred.makeUnsafe()
  /** Completes when it is over, in whatever way. */
  readonly over: Deferred.Deferred<void> = Deferred.makeUnsafe()
  /** Of the page stream, once there is one. */
  progress: () => SenderProgress | undefined = () => undefined
  /** Pages of each block that are not sent yet; none before the latch. */
  unsent: () => ReadonlyArray<Bitmap> = () => []
  #state = MigrationState.initial

  constructor(rate: RateLimit, id: string | undefined) {
    this.rate = rate
    this.id = id
  }

  get state(): MigrationState.MigrationState {
    return this.#state
  }

  get latched(): boolean {
    return MigrationState.isLatched(this.#state)
  }

  /** Takes the event and says what is to be done; that is the caller's to do. */
  advance(event: MigrationState.MigrationEvent): ReadonlyArray<MigrationState.MigrationAction> {
    const { actions, state } = MigrationState.transition(this.#state, event)
    this.#state = state
    return actions
  }

  /** Whether the event would be refused now. Changes nothing. */
  refuses(event: MigrationState.MigrationEvent): boolean {
    return MigrationState.transition(this.#state, event).actions.includes("Refuse")
  }
}
