/**
 * Listens in on the request stream as it is written, with a parser of its own: what the daemon asks the source for must be
 * well-formed, each page asked for once, no page that was given back, nothing after the end of connection.
 */
import { Violation } from "./History.ts"

export class RequestWatch {
  eoc = false
  requests = 0
  #bytes: Array<number> = []
  #block: string | undefined
  readonly #asked = new Set<string>()
  readonly #removed = new Set<string>()

  #word(at: number, bytes: number): number {
    let value = 0
    for (let i = 0; i < bytes; i++) value = value * 256 + this.#bytes[at + i]!
    return value
  }

  push(bytes: Uint8Array): void {
    for (const byte of bytes) this.#bytes.push(byte)
    for (let n = this.#message(); n > 0; n = this.#message()) this.#bytes.splice(0, n)
  }

  /** Bytes of the first message, 0 when it is not whole. */
  #message(): number {
    const bytes = this.#bytes
    const cmd = bytes[0]
    if (cmd === undefined) return 0
    if (this.eoc) throw new Violation("bytes follow the end of connection on the wire")
    if (cmd === 0) return 1
    if (cmd === 6) {
      this.eoc = true
      return 1
    }
    if (cmd > 6) throw new Violation(`request ${cmd} on the wire`)
    let at = 1
    let block = this.#block
    if (cmd === 1 || cmd === 3 || cmd === 5) {
      const n = bytes[1]
      if (n === undefined || bytes.length < 2 + n) return 0
      block = String.fromCharCode(...bytes.slice(2, 2 + n))
      at = 2 + n
    }
    if (bytes.length < at + 4) return 0
    const count = this.#word(at, 4)
    at += 4
    if (bytes.length < at + count * 8) return 0
    if (block === undefined) throw new Violation("a request continues no block")
    if (count === 0) throw new Violation("an empty request on the wire")
    if (cmd !== 5) this.#block = block
    for (let i = 0; i < count; i++, at += 8) {
      const page = `${block} ${this.#word(at, 8)}`
      if (this.#removed.has(page)) {
        throw new Violation(`${cmd === 5 ? "told" : "asked"} about a page given back: ${page}`)
      }
      if (this.#asked.has(page)) throw new Violation(`${cmd === 5 ? "told" : "asked"} about a page asked for: ${page}`)
      ;(cmd === 5 ? this.#removed : this.#asked).add(page)
    }
    this.requests++
    return at
  }
}
