// Random choices that can be repeated: a multiplicative generator with a fixed seed.

export class Dice {
  private state: number

  constructor(seed: number) {
    this.state = seed
  }

  /** An integer from 0 up to, not including, `limit` (at most 2^31 - 1). */
  below(limit: number): number {
    this.state = this.state * 48271 % 2147483647
    return this.state % limit
  }

  one<A>(choices: ReadonlyArray<A>): A {
    return choices[this.below(choices.length)]!
  }
}
