/** Numbers of the umem protocol that more than one of its formats uses. */

/** savevm magic "QEVM" (be32). */
export const SAVEVM_MAGIC = 0x5145564d
/** The only savevm version that is spoken; 2 is the obsolete one. */
export const SAVEVM_VERSION = 3

/** Section types of the savevm framing (u8). */
export const Section = { Eof: 0x00, Start: 0x01, Part: 0x02, End: 0x03, Full: 0x04, Postcopy: 0x10 } as const

/** Version of the section `ram`; the post-copy loader takes no other. */
export const RAM_VERSION = 4
/** Payload word of a `block` section without block migration: its end of section. */
export const BLOCK_EOS = 0x02

/** Low bits of a RAM record's word, below the target page size. */
export const RamFlag = { Compress: 0x02, MemSize: 0x04, Page: 0x08, Eos: 0x10, Continue: 0x20 } as const

/** Command bytes of the request channel. */
export const Command = {
  Init: 0x00,
  OnDemand: 0x01,
  OnDemandCont: 0x02,
  Background: 0x03,
  BackgroundCont: 0x04,
  Remove: 0x05,
  Eoc: 0x06
} as const

/** Bytes of a block or section name, at most. */
export const MAX_NAME_BYTES = 255
/** Bytes a receiver of 2011 can hold of one message. */
export const WINDOW_BYTES = 32768
/** Pages in one request message, at most: what fits in the window after command, name and count. */
export const MAX_PAGE_NR = Math.floor((WINDOW_BYTES - (1 + 1 + MAX_NAME_BYTES + 4)) / 8)
/** Pages that a receiver of 2011 still takes in one message (a CONT); more is never produced. */
export const MAX_RECEIVED_PAGE_NR = 4095
/** Pages in one message of the pipes that a sender of ours produces, and that a TRIGGER or FAULTED may hold. */
export const MAX_PIPE_PAGES = 256
/** Pages in one PAGE_UNMAPPED that a receiver of 2011 can hold. */
export const MAX_UNMAPPED_PAGES = 4094
/** Blocks in a MEM_SIZE list, at most: far more than any guest has, and a bound for what a peer can make us keep. */
export const MAX_BLOCKS = 4096
/** Bytes of a target page unless configured. */
export const TARGET_PAGE_SIZE = 4096
