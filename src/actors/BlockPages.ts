/** What the daemon keeps for each block: its page table, and bits for whatever had to be put off. */
import { Bitmap } from "../protocol/Bitmap.ts"
import { PageTable } from "../protocol/umem/PageTable.ts"
import type { RegisteredBlock } from "../services/Userfaultfd.ts"

export interface BlockPages {
  readonly block: RegisteredBlock
  readonly table: PageTable
  /** Number of the block's first host page over all blocks. */
  readonly base: number
  /** Number of the block's first target page over all blocks. */
  readonly targetBase: number
  /** Host pages whose fault could not be forwarded yet. */
  readonly suspended: Bitmap
  /** Target pages whose removal could not be told yet. */
  readonly removalDue: Bitmap
  /** Host pages that the guest's side has touched or given back. */
  readonly taken: Bitmap
  /** Host pages to be answered with zeros as soon as the kernel takes it. */
  readonly zeroDue: Bitmap
  /**
   * Host pages complete and not taken by the kernel yet, with their bytes unless they are staged or zero. While there is
   * one the link is not read.
   */
  readonly installDue: Map<number, Uint8Array | undefined>
  /** Mode "copy": host pages under assembly, for target pages smaller than host pages. */
  readonly assembly: Map<number, Uint8Array>
  /** Mode "continue": host pages of which the memfd holds more than zeros. */
  readonly staged: Bitmap
  /** Milliseconds of the clock at the first fault on a host page that is waited for. */
  readonly since: Map<number, number>
  /** Nothing is missing, and the kernel has been told so. */
  unregistered: boolean
}

/** Of all blocks, in order; and how many pages they have. */
export const make = (
  blocks: ReadonlyArray<RegisteredBlock>,
  targetPageSize: number
): { readonly blocks: ReadonlyArray<BlockPages>; readonly hostPages: number; readonly targetPages: number } => {
  let hostPages = 0
  let targetPages = 0
  const all = blocks.map((block): BlockPages => {
    const { hostPageSize, length, mode } = block
    const table = new PageTable({ length, targetPageSize, hostPageSize })
    const base = hostPages
    const targetBase = targetPages
    const { hostPages: hosts, targetPages: targets } = table.geometry
    hostPages += hosts
    targetPages += targets
    return {
      block,
      table,
      base,
      targetBase,
      suspended: new Bitmap(hosts),
      removalDue: new Bitmap(targets),
      taken: new Bitmap(hosts),
      zeroDue: new Bitmap(hosts),
      installDue: new Map(),
      assembly: new Map(),
      staged: new Bitmap(mode === "continue" ? hosts : 0),
      since: new Map(),
      unregistered: false
    }
  })
  return { blocks: all, hostPages, targetPages }
}
