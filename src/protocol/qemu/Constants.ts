/** Numbers of QEMU's migration stream that more than one of its formats uses, and the bounds this side keeps to. */

/** Magic "QEVM" (be32). */
export const MAGIC = 0x5145564d
/** The only stream version that is spoken; 2 is the obsolete one. */
export const VERSION = 3

/** Type bytes of the forward stream's records. */
export const Record = {
  Eof: 0x00,
  SectionStart: 0x01,
  SectionPart: 0x02,
  SectionEnd: 0x03,
  SectionFull: 0x04,
  Subsection: 0x05,
  VmDescription: 0x06,
  Configuration: 0x07,
  Command: 0x08,
  Footer: 0x7e
} as const

/** Version of the section `ram`; every other one is refused. */
export const RAM_VERSION = 4
/** Section id of `ram` in what this side sends: QEMU's own, and never 0, which a receiver's empty table also holds. */
export const RAM_SECTION = 2

/** Low 12 bits of a RAM record's word. */
export const RamFlag = {
  Zero: 0x002,
  MemSize: 0x004,
  Page: 0x008,
  Eos: 0x010,
  Continue: 0x020,
  Xbzrle: 0x040,
  Hook: 0x080,
  CompressPage: 0x100
} as const

/** Commands (be16) of a COMMAND record. */
export const Command = {
  OpenReturnPath: 1,
  Ping: 2,
  PostcopyAdvise: 3,
  PostcopyListen: 4,
  PostcopyRun: 5,
  PostcopyRamDiscard: 6,
  Packaged: 7,
  EnableColo: 8,
  PostcopyResume: 9,
  RecvBitmap: 10
} as const

/** Message types (be16) of the return path. */
export const Reply = { Shut: 1, Pong: 2, ReqPagesId: 3, ReqPages: 4, RecvBitmap: 5, ResumeAck: 6 } as const

/** Values of the PINGs, as QEMU's own source numbers them: the pong of 3 says that the devices are loaded. */
export const Ping = { Opened: 1, Discarded: 2, Loaded: 3, Listening: 4 } as const

/** Ends a received bitmap. */
export const BITMAP_END = 0x0123456789abcdefn
/** The value of RESUME_ACK. */
export const RESUME_ACK = 1

/** Bytes of a target page on x86. */
export const TARGET_PAGE_SIZE = 4096
/** Ranges in one POSTCOPY_RAM_DISCARD that this side sends: what QEMU itself does. */
export const MAX_DISCARD_RANGES = 12
/** Bytes of a return path message's payload, at most. */
export const MAX_REPLY_BYTES = 512
/** Bytes of device state that are kept of a peer, at most: 80 × that of a default machine. */
export const MAX_DEVICE_BYTES = 64 * 1024 * 1024
/** Bytes of a machine's type name, at most. */
export const MAX_MACHINE_BYTES = 255
/** Bytes of a configuration subsection's list of capabilities, in names, at most. */
export const MAX_CAPABILITIES = 64
/** Blocks of a guest, at most. */
export const MAX_BLOCKS = 4096
