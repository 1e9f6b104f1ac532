/**
 * A RAM block as QEMU's stream describes it: besides name and length it has a page size of its own, where its memory is
 * of huge pages. Such a block is asked for and sent in whole pages of that size.
 */
import type { RamBlock } from "../RamBlock.ts"
import { TARGET_PAGE_SIZE } from "./Constants.ts"

export interface QemuBlock extends RamBlock {
  /** Bytes of a page as the destination's kernel installs it: 4096, or that of the huge pages. */
  readonly pageSize: number
}

/** The OR of all page sizes, which POSTCOPY_ADVISE carries. */
export const pageSizes = (blocks: ReadonlyArray<QemuBlock>): number =>
  [...new Set(blocks.map(({ pageSize }) => pageSize)).add(TARGET_PAGE_SIZE)].reduce((sum, size) => sum + size, 0)

export const isPowerOfTwo = (n: number): boolean => Number.isSafeInteger(n) && n > 0 && Math.log2(n) % 1 === 0
