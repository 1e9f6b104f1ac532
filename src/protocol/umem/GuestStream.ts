/**
 * The savevm stream of one guest before its switchover, in the two pieces that a source writes: what a destination
 * judges the guest by, while it still runs, and what is left when it has been paused.
 */
import type { RamBlock } from "../RamBlock.ts"
import * as Savevm from "./Savevm.ts"

const RAM_SECTION = 1
const GUEST_SECTION = 2

/** Everything up to the first part of the RAM section. */
export const opening = (blocks: ReadonlyArray<RamBlock>): Uint8Array =>
  Savevm.concat([
    Savevm.header(),
    Savevm.start({ sectionId: RAM_SECTION, name: "ram", instance: 0, version: 4 }),
    Savevm.ramSizes(blocks),
    Savevm.part(RAM_SECTION),
    Savevm.ramEnd()
  ])

/** End of the RAM section and the device state: all that is left but the switchover's byte. */
export const closing = (deviceState: Uint8Array): Uint8Array =>
  Savevm.concat([
    Savevm.end(RAM_SECTION),
    Savevm.ramEnd(),
    Savevm.full({ sectionId: GUEST_SECTION, name: "guest", instance: 0, version: 1 }),
    Savevm.guestState(deviceState)
  ])
