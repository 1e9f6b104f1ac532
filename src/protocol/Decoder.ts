/**
 * What every incremental decoder of this project answers. Four outcomes are kept apart: more bytes are needed, the
 * input ended between two messages, the input is wrong, and a message. After `Malformed` or `End` a decoder answers
 * the same for ever. Nothing here throws on input.
 */

/** Input is wrong at `offset` (bytes from the start of the stream); `truncated` when it ended inside a message. */
export interface Malformed {
  readonly _tag: "Malformed"
  readonly offset: number
  readonly message: string
  readonly truncated: boolean
}

/** One decoded message; `offset` is that of its first byte in the stream. */
export interface Message<A> {
  readonly _tag: "Message"
  readonly offset: number
  readonly message: A
}

export interface NeedMore {
  readonly _tag: "NeedMore"
}

export interface End {
  readonly _tag: "End"
}

export type Outcome<A> = NeedMore | End | Malformed | Message<A>

export const needMore: NeedMore = { _tag: "NeedMore" }
export const end: End = { _tag: "End" }

export interface Decoder<A> {
  /** Appends bytes (copied). Views of earlier messages are invalid from here on. */
  readonly push: (bytes: Uint8Array) => void
  /** Says that no more bytes will come: the next `NeedMore` becomes `End` or a truncated `Malformed`. */
  readonly finish: () => void
  readonly next: () => Outcome<A>
  /** Takes the bytes pushed and not consumed by a message yet. */
  readonly remainder: () => Uint8Array
}
