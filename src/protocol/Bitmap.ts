/**
 * One bit per page of a block, with the number of set bits kept. Indexes are pages from 0; an index outside the bitmap
 * reads as clear and cannot be set. Searches skip 32 pages at a time.
 */
/** The bits of one word from that of page `from` on, up to that of page `end` or the word's last. */
const mask = (from: number, end: number): number => {
  const above = (0xffffffff << (from & 31)) >>> 0
  const past = end - (from & ~31)
  return past >= 32 ? above : above & (2 ** past - 1)
}

export class Bitmap {
  /** Pages. */
  readonly length: number
  /** Bit `i & 31` of word `i >> 5` is page `i`; bits past the end stay clear. */
  readonly words: Uint32Array
  /** The same memory: bit `i & 7` of byte `i >> 3` is page `i`, on a little-endian machine, as all are that Node runs on. */
  readonly bytes: Uint8Array
  #count = 0

  constructor(length: number) {
    this.length = length
    this.words = new Uint32Array(Math.ceil(length / 32))
    this.bytes = new Uint8Array(this.words.buffer)
  }

  /** Number of set bits. */
  get count(): number {
    return this.#count
  }

  test(index: number): boolean {
    return index < this.length && ((this.words[index >>> 5]! >>> (index & 31)) & 1) === 1
  }

  set(index: number): void {
    this.testAndSet(index)
  }

  clear(index: number): void {
    this.testAndClear(index)
  }

  /** Sets the bit and says whether it was set before. */
  testAndSet(index: number): boolean {
    if (!(index >= 0 && index < this.length)) return false
    const word = this.words[index >>> 5]!
    const bit = 1 << (index & 31)
    if ((word & bit) !== 0) return true
    this.words[index >>> 5] = word | bit
    this.#count++
    return false
  }

  /** Clears the bit and says whether it was set before. */
  testAndClear(index: number): boolean {
    if (!(index >= 0 && index < this.length)) return false
    const word = this.words[index >>> 5]!
    const bit = 1 << (index & 31)
    if ((word & bit) === 0) return false
    this.words[index >>> 5] = word & ~bit
    this.#count--
    return true
  }

  /** Sets `count` bits from `first` on, of which none is set. */
  setRun(first: number, count: number): void {
    const end = first + count
    for (let i = first; i < end; i = (i | 31) + 1) this.words[i >>> 5]! |= mask(i, end)
    this.#count += count
  }

  /** Clears `count` bits from `first` on, all of which are set. */
  clearRun(first: number, count: number): void {
    const end = first + count
    for (let i = first; i < end; i = (i | 31) + 1) this.words[i >>> 5]! &= ~mask(i, end)
    this.#count -= count
  }

  setAll(): void {
    this.words.fill(0xffffffff)
    const tail = this.length & 31
    if (tail !== 0) this.words[this.words.length - 1] = 2 ** tail - 1
    this.#count = this.length
  }

  clearAll(): void {
    this.words.fill(0)
    this.#count = 0
  }

  /** The first set page at or after `from`, or -1. */
  nextSet(from: number): number {
    return this.#next(from, 0)
  }

  /** The first clear page at or after `from`, or -1. */
  nextClear(from: number): number {
    return this.#next(from, 0xffffffff)
  }

  #next(from: number, flip: number): number {
    if (!(from < this.length)) return -1
    const { words } = this
    let index = from >>> 5
    let word = (words[index]! ^ flip) & (0xffffffff << (from & 31))
    while (word === 0) {
      index++
      if (index === words.length) return -1
      word = words[index]! ^ flip
    }
    const found = index * 32 + 31 - Math.clz32(word & -word)
    return found < this.length ? found : -1
  }
}
