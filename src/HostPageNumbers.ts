/** The page numbers of the daemon channel, which count all of a guest's host pages, and the ranges of blocks they stand for. */
import type { RegisteredBlock } from "./services/Userfaultfd.ts"

/** Global host page numbers: blocks follow each other, each rounded up to whole host pages of its own size. */
export const of = (blocks: ReadonlyArray<RegisteredBlock>) => {
  let next = 0
  const bases = blocks.map(({ hostPageSize, length }) => {
    const base = next
    next += Math.ceil(length / hostPageSize)
    return base
  })
  return {
    pages: (idstr: string, offset: number, length: number): Float64Array => {
      const at = blocks.findIndex((block) => block.idstr === idstr)
      if (at < 0) return new Float64Array(0)
      const { hostPageSize } = blocks[at]!
      const first = bases[at]! + Math.floor(offset / hostPageSize)
      return Float64Array.from({ length: Math.ceil(length / hostPageSize) }, (_, i) => first + i)
    },
    ranges: (pages: Float64Array) =>
      Array.from(pages, (page): readonly [number, number, number] => {
        let at = bases.length - 1
        while (at > 0 && bases[at]! > page) at--
        const { hostPageSize } = blocks[at]!
        return [at, (page - bases[at]!) * hostPageSize, hostPageSize]
      })
  }
}
