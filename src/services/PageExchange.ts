/**
 * The plans of the addon's two halves of an exchange of pages (`answerRequests`, `fetchPages`): where in the array each
 * number stands. What the call is to do comes first, what it did behind it, and then the log, an entry a page.
 */

/** Numbers of a log entry, and entries that a plan has room for. */
export const LOG_WORDS = 4
export const LOG_ENTRIES = 1024

/** What a wait came to, as bits. */
export const Came = { Nothing: 0, Contended: 4, Something: 8 } as const

/**
 * The source's half. Log entries: a page that was asked for, the byte it repeats or -1, bytes of its record, 0; or the first
 * page of some that were pushed, how many of them are of one byte, bytes of their records, how many they are.
 */
export const Answer = {
  pages: 0,
  pageSize: 1,
  pageFlags: 2,
  fillFlags: 3,
  command: 4,
  /** How long each request is waited for at most; 0: one look; below 0: asleep. */
  nanos: 5,
  /** Where to go on with pages that nobody asked for, and afterwards where that would be; the number of pages: nowhere. */
  cursor: 6,
  /** Whether requests may be answered; else they are left. */
  answers: 7,
  /**
   * Bytes that the peer may not have read when more is pushed, and bytes pushed at once; 0: no such bound. 16 times as many
   * once a page was asked for that is close behind the cursor.
   */
  unread: 8,
  /** Bytes at the beginning of `input` that are not dealt with. */
  unhandled: 9,
  /** What of `output` the link has not taken. */
  pendingAt: 10,
  pendingEnd: 11,
  /** Bytes of the requests that are answered. */
  bytesIn: 12,
  contended: 13,
  /** Whether the link took nothing of what was to be pushed. */
  full: 14,
  logged: 15,
  words: 16
} as const

/** Kinds of entries of the destination's log. */
export const Logged = { asked: 0, placed: 1, run: 2, fillRun: 3 } as const

/**
 * The destination's half. Log entries: kind, page, nanoseconds, and of one that was placed whether it was a fill, of a run of
 * pages that nobody had asked for how many they are.
 */
export const Fetch = {
  address: 0,
  pages: 1,
  pageSize: 2,
  pageFlags: 3,
  fillFlags: 4,
  command: 5,
  /** How long each fault and each answer is waited for at most; 0: one look; below 0: asleep. */
  nanos: 6,
  /** Where in the buffer to read to, and how much at most. */
  readAt: 7,
  readMost: 8,
  /** Whether it may ask for pages; else faults go to the ring. */
  asks: 9,
  /** Bytes at `readAt` that are there already. */
  have: 10,
  /** Events in the ring that are not dealt with. */
  faults: 11,
  /** Bytes at `readAt` that are not dealt with. */
  unhandled: 12,
  /** Bytes at the end of the buffer: what the link has not taken of a request. */
  unsent: 13,
  bytesIn: 14,
  bytesOut: 15,
  contended: 16,
  logged: 17,
  words: 18
} as const
/** Bytes at the end of the buffer that are for requests. */
export const REQUEST_ROOM = 256
