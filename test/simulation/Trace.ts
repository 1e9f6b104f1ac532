/**
 * What happened in a run, in order: always as a hash, so that two runs of a seed can be compared, and as lines when they
 * are to be read. A line costs a string, so bulk runs only hash.
 */
export class Trace {
  /** The lines, in a run that is to be read. */
  readonly lines: Array<string> | undefined
  #high = 0x811c9dc5
  #low = 0x1b873593
  /** Virtual milliseconds, told by the world. */
  time: () => number = () => 0

  constructor(readable: boolean) {
    this.lines = readable ? [] : undefined
  }

  #mix(word: number): void {
    this.#high = Math.imul(this.#high ^ word, 0x01000193)
    this.#low = Math.imul(this.#low + word | 0, 0x85ebca6b) ^ (this.#high >>> 13)
  }

  #text(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i))
  }

  /** A thread was chosen: its number. */
  step(thread: number): void {
    this.#mix(thread)
  }

  /** Something happened: a name and numbers. */
  note(what: string, a = 0, b = 0): void {
    this.#text(what)
    this.#mix(a | 0)
    this.#mix(b | 0)
    this.lines?.push(`${this.time().toFixed(3).padStart(12)} ms  ${what} ${a}${b === 0 ? "" : ` ${b}`}`)
  }

  /** Something to read that the hash need not know. */
  say(what: () => string): void {
    this.lines?.push(`${this.time().toFixed(3).padStart(12)} ms  ${what()}`)
  }

  get hash(): string {
    return (this.#high >>> 0).toString(16).padStart(8, "0") + (this.#low >>> 0).toString(16).padStart(8, "0")
  }
}
