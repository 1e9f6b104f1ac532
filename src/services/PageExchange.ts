/**
 * The plans of the addon's two halves of an exchange of pages (`answerRequests`, `fetchPages`): where in the array each
 * number stands. What the call is to do comes first, what it did behind it, and then the log, an entry a page.
 */

/** Numbers of a log entry, and entries that a plan has room for. */
export const LOG_WORDS = 4
export const LOG_ENTRIES = 256

/** What a wait came to, as bits. */
export const Came = { Nothing: 0, Contended: 4, Something: 8 } as const

/** The source's half. Log entries: page, the byte it repeats or -1, bytes of its record, nanoseconds. */
export const Answer = {
  pages: 0,
  pageSize: 1,
  pageFlags: 2,
  fillFlags: 3,
  command: 4,
  nanos: 5,
  /** Bytes at the beginning of `input` that are not dealt with. */
  unhandled: 6,
  /** What of `output` the link has not taken. */
  pendingAt: 7,
  pendingEnd: 8,
  /** Bytes of the requests that are answered. */
  bytesIn: 9,
  contended: 10,
  logged: 11,
  words: 12
} as const

/** The destination's half. Log entries: 0 asked for or 1 placed, page, nanoseconds, and of a placed one whether it was a fill. */
export const Fetch = {
  address: 0,
  pages: 1,
  pageSize: 2,
  pageFlags: 3,
  fillFlags: 4,
  command: 5,
  nanos: 6,
  /** Where in the buffer to read to, and how much at most. */
  readAt: 7,
  readMost: 8,
  /** Whether it may ask for pages; else faults go to the ring. */
  asks: 9,
  /** Events in the ring that are not dealt with. */
  faults: 10,
  /** Bytes at `readAt` that are not dealt with. */
  unhandled: 11,
  /** Bytes at the end of the buffer: what the link has not taken of a request. */
  unsent: 12,
  bytesIn: 13,
  bytesOut: 14,
  contended: 15,
  logged: 16,
  words: 17
} as const
/** Bytes at the end of the buffer that are for requests. */
export const REQUEST_ROOM = 256
