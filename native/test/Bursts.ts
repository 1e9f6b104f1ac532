// Events of a userfaultfd as promises: what a FaultPoller delivers, one decoded event at a time.
import { constants, EVENT_WORDS, FaultPoller } from "userfaultfd-napi"
import type { Descriptor } from "userfaultfd-napi"

export interface Event {
  readonly event: number
  readonly a: number
  readonly b: number
  readonly c: number
}

/** Decodes the first `count` events of a ring. */
export const decode = (ring: Float64Array, count: number): Array<Event> =>
  Array.from({ length: count }, (_, i) => {
    const at = i * EVENT_WORDS
    return { event: ring[at]!, a: ring[at + 1]!, b: ring[at + 2]!, c: ring[at + 3]! }
  })

export class Bursts {
  private readonly ring = new Float64Array(16 * EVENT_WORDS)
  private readonly poller: FaultPoller
  private readonly events: Array<Event> = []
  private waiting: (() => void) | undefined

  constructor(uffd: Descriptor) {
    this.poller = new FaultPoller(uffd, this.ring)
    this.poller.start((count) => {
      if (count < 0) throw new Error(`burst ${count}`)
      this.events.push(...decode(this.ring, count))
      this.waiting?.()
    })
  }

  /** The next `count` events, however many bursts they come in. */
  async take(count: number): Promise<Array<Event>> {
    while (this.events.length < count) {
      await new Promise<void>((resolve) => {
        this.waiting = resolve
      })
    }
    return this.events.splice(0, count)
  }

  /** The next event, which must be a page fault: its address. */
  async fault(): Promise<number> {
    const [event] = await this.take(1)
    if (event!.event !== constants.EVENT_PAGEFAULT) throw new Error(`not a page fault: ${event!.event}`)
    return event!.b
  }

  close(): void {
    this.poller.close()
  }
}
