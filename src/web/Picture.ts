/** What the page shows at one moment: the observations of the sides that can be seen from here, and what came of it. */
import type { Observation } from "../Observation.ts"
import type { Report } from "../Report.ts"

export interface Sides {
  readonly source?: Observation
  readonly destination?: Observation
}

/** What is known when it is over. */
export interface Ending {
  readonly reports?: { readonly source?: Report; readonly destination?: Report }
  /** Of a demo. */
  readonly outcome?: {
    readonly verified: boolean
    readonly downtimeMs: number
    readonly missingAtFirstAnswer: number
  }
  readonly error?: string
}

/** One point of the curve; pages. */
export interface Sample {
  readonly at: number
  readonly onDemand: number
  readonly background: number
  readonly removed: number
  readonly total: number
}

export interface Picture extends Ending {
  /** When it was taken, by the monotonic clock of the process that serves it: two differ by the interval, or more. Milliseconds. */
  readonly takenAt: number
  readonly sides: Sides
  readonly reports: NonNullable<Ending["reports"]>
  readonly ended: boolean
  readonly sample?: Sample
}

export const empty: Picture = { takenAt: 0, sides: {}, reports: {}, ended: false }

/** Of the destination, if it can be seen: there pages count when they are there. */
export const sampleOf = ({ destination, source }: Sides): Sample | undefined => {
  const side = destination ?? source
  if (side === undefined) return undefined
  const { background, onDemand, removed, total } = side.pages
  return { at: side.at, onDemand, background, removed, total }
}
