/**
 * Linux userfaultfd for Node.js: register memory, read its page faults, install its pages; and the few system calls
 * around it that a pager needs (mappings, sockets that carry descriptors, readiness in the event loop).
 *
 * Two kinds of results. *Set-up* calls throw a {@link SystemError} (or a `TypeError` / `RangeError` for arguments that
 * could never work). *Hot* calls (marked "signed") never throw for what the kernel says: they return a count ≥ 0 or a
 * **negative errno**, as the kernel's own result fields do.
 *
 * Addresses and lengths are plain numbers of bytes: user addresses are below 2^57, lengths below 2^53; an address that
 * is not a safe integer is refused.
 */

/** What a set-up call throws when the kernel refuses. The message has a remedy where one is known. */
export interface SystemError extends Error {
  /** Symbolic errno, for example `"EINVAL"`. */
  readonly code: string
  /** Positive errno. */
  readonly errno: number
  readonly syscall: string
}

/**
 * Constants of `<linux/userfaultfd.h>` and `<linux/fs.h>` as of Linux 6.18, whatever headers the host has, and of the
 * system calls used here. IOCTL_*: bits of what {@link register} returns. INSTALL_*: kinds of {@link installPages}.
 * PAGE_IS_*: categories of {@link scanPages}.
 */
export const constants: {
  readonly EVENT_PAGEFAULT: 0x12
  readonly EVENT_FORK: 0x13
  readonly EVENT_REMAP: 0x14
  readonly EVENT_REMOVE: 0x15
  readonly EVENT_UNMAP: 0x16
  readonly PAGEFAULT_FLAG_WRITE: 1
  readonly PAGEFAULT_FLAG_WP: 2
  readonly PAGEFAULT_FLAG_MINOR: 4
  readonly FEATURE_PAGEFAULT_FLAG_WP: 0x1
  readonly FEATURE_EVENT_FORK: 0x2
  readonly FEATURE_EVENT_REMAP: 0x4
  readonly FEATURE_EVENT_REMOVE: 0x8
  readonly FEATURE_MISSING_HUGETLBFS: 0x10
  readonly FEATURE_MISSING_SHMEM: 0x20
  readonly FEATURE_EVENT_UNMAP: 0x40
  readonly FEATURE_SIGBUS: 0x80
  readonly FEATURE_THREAD_ID: 0x100
  readonly FEATURE_MINOR_HUGETLBFS: 0x200
  readonly FEATURE_MINOR_SHMEM: 0x400
  readonly FEATURE_EXACT_ADDRESS: 0x800
  readonly FEATURE_WP_HUGETLBFS_SHMEM: 0x1000
  readonly FEATURE_WP_UNPOPULATED: 0x2000
  readonly FEATURE_POISON: 0x4000
  readonly FEATURE_WP_ASYNC: 0x8000
  readonly FEATURE_MOVE: 0x10000
  readonly MODE_MISSING: 1
  readonly MODE_WP: 2
  readonly MODE_MINOR: 4
  readonly IOCTL_WAKE: 0x4
  readonly IOCTL_COPY: 0x8
  readonly IOCTL_ZEROPAGE: 0x10
  readonly IOCTL_MOVE: 0x20
  readonly IOCTL_WRITEPROTECT: 0x40
  readonly IOCTL_CONTINUE: 0x80
  readonly IOCTL_POISON: 0x100
  readonly COPY_DONTWAKE: 1
  readonly COPY_WP: 2
  readonly ZEROPAGE_DONTWAKE: 1
  readonly CONTINUE_DONTWAKE: 1
  readonly CONTINUE_WP: 2
  readonly POISON_DONTWAKE: 1
  readonly WRITEPROTECT_WP: 1
  readonly WRITEPROTECT_DONTWAKE: 2
  readonly MOVE_DONTWAKE: 1
  readonly MOVE_ALLOW_SRC_HOLES: 2
  readonly INSTALL_COPY: 0
  readonly INSTALL_ZERO: 1
  readonly INSTALL_CONTINUE: 2
  readonly INSTALL_POISON: 3
  readonly INSTALL_DONTWAKE: 0x10
  readonly INSTALL_WP: 0x20
  readonly PAGE_IS_WPALLOWED: 0x1
  readonly PAGE_IS_WRITTEN: 0x2
  readonly PAGE_IS_FILE: 0x4
  readonly PAGE_IS_PRESENT: 0x8
  readonly PAGE_IS_SWAPPED: 0x10
  readonly PAGE_IS_PFNZERO: 0x20
  readonly PAGE_IS_HUGE: 0x40
  readonly PAGE_IS_SOFT_DIRTY: 0x80
  readonly PAGE_IS_GUARD: 0x100
  readonly MADV_NORMAL: 0
  readonly MADV_RANDOM: 1
  readonly MADV_SEQUENTIAL: 2
  readonly MADV_WILLNEED: 3
  readonly MADV_DONTNEED: 4
  readonly MADV_FREE: 8
  readonly MADV_REMOVE: 9
  readonly MADV_DONTFORK: 10
  readonly MADV_DOFORK: 11
  readonly MADV_MERGEABLE: 12
  readonly MADV_UNMERGEABLE: 13
  readonly MADV_HUGEPAGE: 14
  readonly MADV_NOHUGEPAGE: 15
  readonly MADV_DONTDUMP: 16
  readonly MADV_DODUMP: 17
  readonly MADV_WIPEONFORK: 18
  readonly MADV_KEEPONFORK: 19
  readonly MADV_COLD: 20
  readonly MADV_PAGEOUT: 21
  readonly MADV_POPULATE_READ: 22
  readonly MADV_POPULATE_WRITE: 23
  readonly MADV_DONTNEED_LOCKED: 24
  readonly MADV_COLLAPSE: 25
  readonly SEAL_SEAL: 1
  readonly SEAL_SHRINK: 2
  readonly SEAL_GROW: 4
  readonly SEAL_WRITE: 8
  readonly SEAL_FUTURE_WRITE: 16
  readonly SEAL_EXEC: 32
  readonly READABLE: 1
  readonly WRITABLE: 2
  readonly DISCONNECT: 4
  readonly SOCK_STREAM: 1
  readonly SOCK_DGRAM: 2
  readonly SOCK_SEQPACKET: 5
  readonly SHUT_RD: 0
  readonly SHUT_WR: 1
  readonly SHUT_RDWR: 2
}

/** Symbolic name of a positive errno, `"E<number>"` when unknown. */
export function errnoName(errno: number): string

/** Bytes of a page of this host. */
export const pageSize: number

// ---------------------------------------------------------------------------------------------- descriptors

/**
 * The one owner of a file descriptor. All calls take descriptors, never numbers, so a number that the kernel has
 * given to somebody else meanwhile cannot be acted on: a closed descriptor throws (set-up) or gives -EBADF (signed).
 * Closed at the latest when collected or when its environment (the main or a worker thread) ends.
 */
export class Descriptor {
  private constructor()
  /** The number, or -1 once closed or released. */
  readonly fd: number
  /** Another descriptor of the same open file description (F_DUPFD_CLOEXEC), independent of this one. */
  dup(): Descriptor
  /**
   * A token for {@link Descriptor.adopt} in any environment of this process, as often as needed until this descriptor
   * and all that were adopted by it are closed. The token itself holds nothing. @throws SystemError EBADF when closed
   */
  share(): bigint
  /** Idempotent. */
  close(): void
  /** Gives up ownership without closing and returns the number. @throws SystemError EBADF when already closed */
  release(): number
  /**
   * Takes ownership of an open number and sets FD_CLOEXEC.
   * @throws SystemError EBADF when it is not open, EBUSY when another Descriptor of this process or the event loop owns
   * it
   */
  static adopt(fd: number): Descriptor
  /** A descriptor of the same open file by token. @throws SystemError ESTALE when all of its holders are closed */
  static adopt(token: bigint): Descriptor
  /**
   * Another owner for a number that stays with whoever has it now: F_DUPFD_CLOEXEC of a bare number.
   * @throws SystemError EBADF
   */
  static duplicate(fd: number): Descriptor
}

// ---------------------------------------------------------------------------------------------- userfaultfd

export interface OpenOptions {
  /** Features that must be granted, else ENOTSUP (FEATURE_*). Default 0. */
  readonly required?: number
  /** Features taken if the kernel has them. Default 0. */
  readonly optional?: number
  /** Only user-mode faults: needs no privilege. Default false. */
  readonly userModeOnly?: boolean
  /** Which way: device `/dev/userfaultfd` first and then the system call (default), or one of them. */
  readonly via?: "auto" | "device" | "syscall"
}

/** An open userfaultfd: non-blocking, close-on-exec. */
export interface Opened {
  readonly descriptor: Descriptor
  /** Features in force: required ones, and optional ones that the kernel has (FEATURE_*). */
  readonly features: number
  /** Features the kernel offers. */
  readonly offered: number
  /** Ioctls the kernel offers at API level, a bit an ioctl number (without bit 63, UFFDIO_API itself). */
  readonly ioctls: number
  readonly via: "device" | "syscall"
  readonly userModeOnly: boolean
}

/**
 * userfaultfd(2) + UFFDIO_API. Feature bits that this package does not know are passed on. An optional EVENT_FORK is
 * dropped where it needs a capability that the process lacks. The first open of a process runs the quick part of
 * {@link selfTest} (0.1 ms).
 * @throws SystemError EPERM (the message names the remedy), ENOSYS, ENOTSUP (a required feature is missing, or the
 * kernel failed the self-test)
 */
export function open(options?: OpenOptions): Opened

/** What {@link open} would get: never throws, reports each way on its own. */
export function probe(): {
  readonly device: { readonly available: boolean; readonly errno: number }
  readonly syscall: { readonly available: boolean; readonly errno: number }
  readonly userModeOnly: { readonly available: boolean; readonly errno: number }
  readonly features: number
  readonly ioctls: number
}

/** One comparison of {@link selfTest}. */
export interface SelfTestCheck {
  readonly name: string
  /** False when this kernel does not have it; nothing was compared then. */
  readonly offered: boolean
  readonly ok: boolean
  /** What came out otherwise, else empty. */
  readonly detail: string
}
/**
 * Compares the constants and layouts of this package with the running kernel, by carrying out each ioctl once on memory
 * of its own (also PAGEMAP_SCAN, and a fault of a second thread). Takes some milliseconds; never throws.
 */
export function selfTest(): ReadonlyArray<SelfTestCheck>

/**
 * UFFDIO_REGISTER (ioctl_userfaultfd(2)): whole pages, MODE_* bits. Returns the range's ioctl bits, a bit an ioctl
 * number (IOCTL_*; bits of later kernels are passed on). With a userfaultfd that was opened in this process the range
 * must lie inside a {@link Region}, which is what keeps a wrong address from stopping the process for ever; the
 * addresses of one that came from another process are of that process.
 *
 * MODE_MISSING: anonymous, memfd and hugetlb memory. MODE_MINOR: memfd and hugetlb. MODE_WP: all three.
 * @throws SystemError EFAULT (not inside a Region), EINVAL, EBUSY (another userfaultfd has it), EBADF, ESTALE
 */
export function register(uffd: Descriptor, address: number, length: number, mode: number): number
/** UFFDIO_UNREGISTER: waiters of the range go on and see zeros in missing pages. @throws SystemError EINVAL, EBADF */
export function unregister(uffd: Descriptor, address: number, length: number): void

/**
 * UFFDIO_COPY (signed): bytes installed or -errno, the kernel's result field. Fewer bytes than asked: it met a present
 * page, go on behind them and get -EEXIST (17, it is there: wake its waiters). -EAGAIN (11): an event is queued, read
 * it first. -ENOENT (2): not registered (any more). -ESRCH (3): the target process is gone. `source` may be unaligned
 * and is pinned during the call. mode: COPY_*.
 */
export function copy(
  uffd: Descriptor,
  address: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
  mode: number
): number
/** UFFDIO_ZEROPAGE (signed): bytes or -errno, as {@link copy}. mode: ZEROPAGE_*. Not on hugetlb memory: -EINVAL. */
export function zeropage(uffd: Descriptor, address: number, length: number, mode: number): number
/**
 * UFFDIO_CONTINUE (signed): maps pages that the memfd already has; bytes or -errno: -EFAULT (14) when the memfd lacks
 * the page, -EEXIST (17) when it is mapped. mode: CONTINUE_DONTWAKE, CONTINUE_WP (mapped and write-protected at once).
 */
export function continueRange(uffd: Descriptor, address: number, length: number, mode: number): number
/** UFFDIO_WAKE (signed): 0 or -errno. */
export function wake(uffd: Descriptor, address: number, length: number): number
/**
 * UFFDIO_POISON (signed, Linux 6.6): bytes or -errno; -EEXIST (17) for a page that is present. Needs FEATURE_POISON.
 * Whoever touches a page of it gets SIGBUS (BUS_ADRERR), until a {@link copy} over it. mode: POISON_DONTWAKE.
 */
export function poison(uffd: Descriptor, address: number, length: number, mode?: number): number
/**
 * UFFDIO_MOVE (signed, Linux 6.8): moves pages of private anonymous memory to missing ones without copying; bytes or
 * -errno. Needs FEATURE_MOVE. The source must lie inside a {@link Region} of this process, else -EFAULT (14); both
 * sides are of one process, else -EINVAL. -EBUSY (16): a page is pinned or shared (after a fork), -ENOENT (2): the
 * source has no such page and MOVE_ALLOW_SRC_HOLES is not set, -EEXIST (17): the destination has one. mode: MOVE_*.
 */
export function move(uffd: Descriptor, address: number, sourceAddress: number, length: number, mode: number): number
/**
 * UFFDIO_WRITEPROTECT (signed): 0 or -errno. With WRITEPROTECT_WP the next write of each page faults with
 * PAGEFAULT_FLAG_WP (or is only noted, with FEATURE_WP_ASYNC); without it the protection goes and waiters are woken,
 * unless WRITEPROTECT_DONTWAKE. Pages that are not populated are protected only with FEATURE_WP_UNPOPULATED: without it
 * that is lost in silence. -ENOENT (2): the range is not registered with MODE_WP. -EAGAIN (11): as of {@link copy}.
 */
export function writeProtect(uffd: Descriptor, address: number, length: number, mode: number): number

/** Words an entry takes in the vector of {@link installPages}. */
export const VECTOR_WORDS: 6
/**
 * Many pages in one call (signed). `vector` has VECTOR_WORDS numbers an entry, an entry being a page or a run of pages:
 *
 * | word | |
 * | --- | --- |
 * | 0 address | where to, whole pages |
 * | 1 source offset | bytes into `source`, unaligned at will; only of INSTALL_COPY |
 * | 2 length | bytes, whole pages |
 * | 3 kind | INSTALL_COPY, _ZERO, _CONTINUE or _POISON, plus INSTALL_DONTWAKE, INSTALL_WP (COPY and CONTINUE) |
 * | 4 done | bytes in place; 0 at first, written back |
 * | 5 status | written back: 0, -EEXIST when some page was present already, or the -errno that it stopped at |
 *
 * Carries out the entries from index `from` up to, not including, `to`, and returns how many of them are complete.
 * Fewer than `to - from`: the next entry says in `status` why (-EAGAIN: read the queued events, -ENOENT: the range is
 * gone, -ESRCH: the process is gone); call again with `from` moved on by the result, and it goes on where it stopped.
 *
 * A page that is present already counts as done, and its waiters are woken. Neighbours of one kind become one ioctl,
 * also when their bytes lie scattered (as between the headers of a network stream). Zeros of hugetlb memory are copied.
 * `pageSize` is that of the range (default: the host's). The vector and the source are read when the call begins.
 * @throws RangeError for an entry that could never be carried out; nothing was done then. -EBADF when closed
 */
export function installPages(
  uffd: Descriptor,
  vector: Float64Array,
  from: number,
  to: number,
  source: Uint8Array,
  pageSize?: number
): number

/** Words an event takes in the array of {@link readEvents}. */
export const EVENT_WORDS: 4
/**
 * Reads pending events in one batch (signed): their number, 0 when none is pending, or -errno. Each takes EVENT_WORDS
 * numbers, the event (EVENT_*) and a, b, c:
 *
 * | event | a | b | c |
 * | --- | --- | --- | --- |
 * | PAGEFAULT | flags, PAGEFAULT_FLAG_* | address | thread id (FEATURE_THREAD_ID, else 0) |
 * | FORK | number of the child's userfaultfd | 0 | 0 |
 * | REMAP | from | to | length |
 * | REMOVE, UNMAP | start | end | 0 |
 *
 * A fork's number is to be adopted, then served or closed: a child that nobody serves waits for ever. What is not
 * adopted is closed at the end of the environment.
 *
 * The kernel gives page faults before removals, whatever came first: read all, apply removals, then serve faults.
 * -ENOTTY (25) when the descriptor is not a userfaultfd.
 */
export function readEvents(uffd: Descriptor, into: Float64Array): number

/** An event as an object. Addresses and lengths in bytes; `end` is exclusive. */
export type UffdEvent =
  | {
    readonly type: "pagefault"
    /** Of the page, or of the very byte with FEATURE_EXACT_ADDRESS. */
    readonly address: number
    readonly write: boolean
    /** A write to a protected page: answer with {@link writeProtect}. */
    readonly wp: boolean
    /** The memfd has the page: answer with {@link continueRange}. */
    readonly minor: boolean
    /** Of the faulting thread with FEATURE_THREAD_ID, else 0. */
    readonly threadId: number
  }
  | { readonly type: "fork"; readonly descriptor: Descriptor }
  | { readonly type: "remap"; readonly from: number; readonly to: number; readonly length: number }
  | { readonly type: "remove" | "unmap"; readonly start: number; readonly end: number }
  /** Of a later kernel. */
  | { readonly type: "unknown"; readonly event: number }
/**
 * The first `count` events of a ring, decoded once: a fork's descriptor is adopted by this. Allocates an object an
 * event; a busy pager reads the words.
 */
export function decodeEvents(ring: Float64Array, count: number): Array<UffdEvent>

// ---------------------------------------------------------------------------------------------- readiness

/**
 * Readiness of a descriptor in the event loop (`uv_poll`), on a duplicate of its own, so that the descriptor may be
 * closed at any time. The open file becomes non-blocking, for all who share it. One callback a loop turn; an error of
 * poll itself comes as a negative status. An error condition of the descriptor (POLLERR: a refused connection, a pipe
 * without reader) comes as status 0 and everything watched: the next read, write or {@link socketError} says which.
 *
 * A watching Poller keeps itself and the event loop alive; close it. An exception of the callback is uncaught.
 */
export class Poller {
  /** @throws SystemError EPERM when the kernel cannot poll this kind of file, EBADF */
  constructor(descriptor: Descriptor)
  /** Replaces what is waited for (READABLE | WRITABLE | DISCONNECT); 0 pauses. Idempotent. @throws SystemError EBADF */
  watch(events: number, onReady: (status: number, events: number) => void): void
  /** Keeps the callback and stops polling, respectively goes on. Idempotent, nothing once closed. */
  pause(): void
  resume(): void
  /** Whether a watching Poller keeps the event loop alive: it does at first. */
  ref(): void
  unref(): void
  /** Idempotent; no callback comes afterwards. */
  close(): void
}

/**
 * Events of a userfaultfd as bursts: reads up to `ring.length / EVENT_WORDS` events in the poll callback and calls
 * `onBurst(count)` once a burst. Events of one fault storm come in one burst. A negative count is a negative errno of
 * the poll or of read(2), or -ENOBUFS (105) when the ring was transferred away; polling is then paused.
 *
 * Holds a duplicate of the userfaultfd: while it is open, closing the descriptor does not end the registrations.
 */
export class FaultPoller {
  /** The ring is written only between callbacks. @throws SystemError ENOTTY when it is no userfaultfd, EBADF */
  constructor(uffd: Descriptor, ring: Float64Array)
  /**
   * `lingerNanos` (1 ms at most, default 0): after each burst the thread sleeps for the next one so long at most, within
   * the same callback of the loop, 1 ms in one turn altogether. A fault that follows an answer is answered without the
   * loop's turn between, and without a second entry from the loop; everything else of the event loop waits meanwhile,
   * also what `onBurst` queued (ticks, promises). For threads that fault again and again.
   * @throws SystemError EBADF when closed
   */
  start(onBurst: (count: number) => void, lingerNanos?: number): void
  /**
   * From now on faults of missing pages in [`address`, `address + length`) are answered by this poller itself, while it
   * runs, with UFFDIO_COPY of `pageSize` bytes (default: the host's page) from `source`: the byte at `address` is the one
   * at `sourceOffset`. No JavaScript runs for such a fault, which then costs what it costs in C. `source` is held until
   * {@link unserve} or the close, also when it is closed meanwhile; its bytes are read when the fault comes.
   *
   * Everything else still comes to `onBurst`: other addresses, other events, faults of other kinds and whatever the
   * kernel refuses but for EEXIST (then the waiting thread is woken); and all faults that were read together with
   * another event, so that none of a removed page is answered before its removal was heard of. A fault that comes to
   * `onBurst` this way is its own to answer, or to have raised again by {@link wake}. After EVENT_REMOVE, call `unserve`
   * for the range before the callback returns, or its pages come back from `source`.
   *
   * A ring that is transferred away while ranges are served loses the events read with it other than faults.
   * @param address bytes, a multiple of `pageSize`, as is `length`
   * @throws RangeError overlaps with a range that is served; not inside `source`; `source` is the served memory itself
   * @throws SystemError EBADF when the poller or `source` is closed
   */
  serve(address: number, length: number, source: Region, sourceOffset: number, pageSize?: number): void
  /** Faults in [`address`, `address + length`) come to `onBurst` again. Idempotent, also after the close. */
  unserve(address: number, length: number): void
  /** Pages installed by {@link serve} so far. */
  served(): number
  /** As of {@link Poller}. */
  pause(): void
  resume(): void
  ref(): void
  unref(): void
  /** Idempotent; no callback comes afterwards. */
  close(): void
}

/**
 * Waits without sleeping, at most `nanos` (10 ms at most), until one of two descriptors is ready; yields the CPU
 * between two looks. `firstEvents`, `secondEvents`: READABLE | WRITABLE. Bits of the result: 1 and 2, the first and the
 * second are ready (or have an error condition); 4, a yield took so long that others want the CPU: sleep instead for a
 * while. -EBADF when one is closed. The event loop stands still meanwhile.
 */
export function busyPoll(
  first: Descriptor,
  firstEvents: number,
  second: Descriptor | null,
  secondEvents: number,
  nanos: number
): number

/**
 * One half of an exchange of pages over a stream socket, without JavaScript between a request and its answer. A request
 * is a command byte, be32 count (1 to 16) and as many be64 page numbers; its answer is, for each page, a be64 (the
 * page's offset in the region | `pageFlags`) and the page, or (offset | `fillFlags`) and the one byte that it repeats.
 *
 * Waits for requests without sleeping, `nanos` at most for each and 8 ms in all, and answers those of pages whose bit is
 * set in `dirty` (bit `i & 7` of byte `i >> 3`) from `region`, as long as the socket takes all of an answer. Anything
 * else ends the call, unanswered: bytes that are no such request, a page whose bit is clear or that is logged already, the
 * end of the stream, an error. While nobody asks it pushes pages whose bit is set, in chunks of 32 KiB or 128 pages, from
 * a cursor on, which goes on at the page last asked for. Changes nothing but `plan`, `input` and `output`; the caller
 * clears the bits.
 *
 * `plan`, in: 0 pages, 1 page size (a power of two, bytes), 2 `pageFlags`, 3 `fillFlags` (both below the page size), 4
 * command, 5 `nanos` (0: one look; below 0: waits asleep, so long at most), 6 the cursor, a page (the number of pages: nothing is pushed), 7 whether requests are
 * answered (0: whatever comes ends the call), 8 bytes of the socket's queue (SIOCOUTQ) above which nothing is pushed, and of
 * a chunk (0: no such bound), sixteen times as many once a page was asked for that is less than 16 behind the cursor. Out: 6 the cursor; 9 bytes at the beginning of `input` that are not dealt with; 10, 11 where in `output`
 * the bytes begin and end that the socket has not taken; 12 bytes of the requests answered; 13 whether others want the CPU;
 * 14 whether the socket took nothing of what was to be pushed; 15 entries of the log, which begins at 16: a page that was asked for, its byte or -1, bytes of its answer, 0; or the first of some pages that
 * were pushed, how many of them went as one byte, bytes of their records, how many they are. It has room for at least 16
 * entries. `input` holds at least 133 bytes, `output` one page and 8.
 *
 * @returns entries of the log; -EBADF when the link or the region is closed, -ESTALE when the memory's owner is gone
 * @throws RangeError for a plan that cannot be carried out
 */
export function answerRequests(
  link: Descriptor,
  region: Region,
  plan: Float64Array,
  dirty: Uint8Array,
  input: Uint8Array,
  output: Uint8Array
): number

/**
 * The other half, see {@link answerRequests}: reads faults of one range, asks for their pages, and installs the answers
 * by COPY or ZEROPAGE, without JavaScript between. Waits without sleeping for faults and answers, `nanos` at most for each
 * and 8 ms in all. A page is asked for when its bit is clear in `requested` and in `received`. Whatever page comes whose
 * bit is clear in `received` is installed; neighbours that nobody asked for together, up to 64 KiB or 256 pages of zeros.
 * Anything else ends the call: other events, faults on other pages, bytes that are no such page, one that the kernel puts
 * off, the end of the stream, an error. Changes nothing but `plan`, `buffer` and `ring`; the caller sets the bits.
 *
 * `plan`, in: 0 address of the range, 1 pages, 2 page size (a power of two, 64 KiB at most), 3 `pageFlags`, 4
 * `fillFlags`, 5 command, 6 `nanos` (0: one look; below 0: waits asleep, so long at most), 7 where in `buffer` to read to, 8 bytes there at most (a page and 8
 * more than are there already), 9 whether it may ask; if not, faults go to the ring; 10 bytes that are there already. Out:
 * 11 events in `ring`, as of {@link readEvents}; 12 bytes in `buffer`, from where it read, that are not dealt with; 13
 * bytes at the end of `buffer`: the rest of a request, which the socket has not taken; 14 bytes of the pages dealt with;
 * 15 bytes of requests sent; 16 whether others want the CPU; 17 entries of the log, which begins at 18: 0 (asked for), page,
 * CLOCK_MONOTONIC nanoseconds, 0; 1 (came), page, nanoseconds, 1 if it was one byte; or 2, and 3 if they were of one byte
 * (came unasked), first page, nanoseconds, how many. It has room for at least 32 entries, `ring` for 16 events, and
 * `buffer` for 133 bytes behind what is read.
 *
 * @returns entries of the log; -EBADF when one is closed, -ENOTTY when `uffd` is no userfaultfd
 * @throws RangeError for a plan that cannot be carried out
 */
export function fetchPages(
  uffd: Descriptor,
  link: Descriptor,
  plan: Float64Array,
  requested: Uint8Array,
  received: Uint8Array,
  buffer: Uint8Array,
  ring: Float64Array
): number

/**
 * Sends ranges of a region over a stream socket from where they lie, 64 at most: each as a be64 (its offset | `flags`) and
 * its bytes, or, when these are all equal and `fillFlags` is not 0, (offset | `fillFlags`) and that one byte. `ranges` is that of
 * {@link gatherRanges}, whose gaps mean nothing here. What the socket does not take is copied to `rest`, to be sent
 * before anything else; `rest` must hold it all.
 *
 * @returns bytes in `rest`; -errno when nothing was sent: of sendmsg(2) but EAGAIN, or -EBADF closed, -ERANGE outside of
 *   the region, -EFAULT made inaccessible, -ESTALE the memory's owner is gone, -ENOBUFS `rest` is too short
 * @throws RangeError for a range that is not made of whole numbers, or more of them than `ranges` holds
 */
export function sendRanges(
  link: Descriptor,
  region: Region,
  ranges: Float64Array,
  count: number,
  flags: number,
  fillFlags: number,
  rest: Uint8Array
): number

// ---------------------------------------------------------------------------------------------- memory

/**
 * A range of memory with an owner: mapped here, or the memory of an ArrayBuffer (also a WebAssembly.Memory's), which
 * is then kept alive. The same region can be held from several threads ({@link Region.share}); the mapping goes away
 * with the last holder, an ArrayBuffer's region becomes unusable (ESTALE) when the environment that owns it ends, and
 * for its owner's calls when the buffer is detached (a transfer; WebAssembly.Memory.grow).
 *
 * A closed region gives -EBADF or throws EBADF; `address` and `length` stay readable.
 */
export class Region {
  private constructor()
  readonly address: number
  /** Bytes. */
  readonly length: number
  /** Bytes of a page: the host's, or of a huge page. */
  readonly pageSize: number
  readonly closed: boolean
  /**
   * Private anonymous mapping (mmap(2)), zero-filled, not populated, MADV_DONTFORK left to the caller. `length` is a
   * multiple of the page size, else a RangeError. `hugetlb`: bytes of a huge page, for example 2 MiB.
   * @throws SystemError ENOMEM when the host has no such pages
   */
  static anonymous(length: number, options?: { readonly hugetlb?: number }): Region
  /**
   * Shared mapping of a new memfd (memfd_create(2)), which is sealed against shrinking and growing, and by the SEAL_*
   * bits of `seal` once it is mapped (SEAL_FUTURE_WRITE: nobody else maps it for writing). `hugetlb`: as of
   * `anonymous`.
   * @throws SystemError ENOMEM when the host has no such pages, EBUSY for SEAL_WRITE (this mapping may write)
   */
  static memfd(
    name: string,
    length: number,
    options?: { readonly hugetlb?: number; readonly seal?: number }
  ): Region
  /**
   * Shared mapping of an existing descriptor (a second view of a memfd), whole pages of that file. A RangeError when
   * the file is shorter; one that is not sealed against shrinking must not become so. @throws SystemError ENODEV when
   * it is not a regular file or memfd, EACCES
   */
  static map(descriptor: Descriptor, offset: number, length: number): Region
  /**
   * The memory of a buffer, by reference. The buffer must not be detached while other threads use the region. A
   * TypeError for resizable buffers. Only whole pages can be registered: of a WebAssembly.Memory that is everything.
   */
  static ofBuffer(buffer: ArrayBuffer): Region
  /** The memfd behind the region, a new descriptor; null when there is none. */
  descriptor(): Descriptor | null
  /**
   * An ArrayBuffer over the mapping; holds it. The buffer given to `ofBuffer` for such a region, in its own environment
   * (ENOTSUP elsewhere). Touching it in the thread that serves its faults waits for ever.
   */
  buffer(): ArrayBuffer
  /**
   * A token for {@link Region.adopt} in any environment of this process, as often as needed until all holders are gone.
   * The token itself holds nothing.
   */
  share(): bigint
  /** @throws SystemError ESTALE when no holder is left */
  static adopt(token: bigint): Region
  /**
   * memcpy out of the region (signed): bytes or -errno (-ESTALE, -ERANGE outside, -EFAULT after {@link protectNone}).
   * Touches the memory: never on a registered range's serving thread. A poisoned page kills by SIGBUS.
   */
  read(offset: number, into: Uint8Array, intoOffset: number, length: number): number
  /** memcpy into the region (signed). */
  write(offset: number, from: Uint8Array, fromOffset: number, length: number): number
  /** The byte that all bytes of the range equal, 0…255, or -1 (or -errno below -1). */
  fillByte(offset: number, length: number): number
  /**
   * madvise(2) (signed): 0 or -errno; `advice` is MADV_*. -EINVAL for parts of pages and for advice that reaches beyond
   * the range (hardware poison, guards). With EVENT_REMOVE on it waits until the event is read: never on the serving
   * thread.
   */
  madvise(offset: number, length: number, advice: number): number
  /** mprotect(PROT_NONE) (signed), whole pages: makes later touches fault with SIGSEGV. */
  protectNone(offset: number, length: number): number
  /**
   * Lets go of this holder. Idempotent. The last one unmaps; where the range is registered with EVENT_UNMAP that
   * happens in the background, once its event is read or the userfaultfd is closed.
   */
  close(): void
}

/** Adds SEAL_* bits to a memfd (fcntl(2), F_ADD_SEALS). @throws SystemError EPERM (SEAL_SEAL is set), EBUSY, EINVAL */
export function addSeals(descriptor: Descriptor, seals: number): void
/** The seals of a memfd, SEAL_* bits. @throws SystemError EINVAL when it is none */
export function seals(descriptor: Descriptor): number

// ---------------------------------------------------------------------------------------------- dirty pages

/** /proc/PID/pagemap, of this process by default. @throws SystemError ENOENT, EACCES */
export function openPagemap(pid?: number): Descriptor

/** Numbers a run takes in the array of {@link scanPages}: start address, end address, categories. */
export const RUN_WORDS: 3

export interface ScanOptions {
  /** PAGE_IS_* that a page must all have. Default 0. */
  readonly required?: number
  /** PAGE_IS_* of which it must have one. Default 0: no such condition. */
  readonly anyOf?: number
  /** PAGE_IS_* whose sense is turned round before matching. Default 0. */
  readonly inverted?: number
  /** PAGE_IS_* to be reported. Default: those of `required` and `anyOf`. */
  readonly returned?: number
  /** Pages, after which to stop. Default 0: no limit. */
  readonly mostPages?: number
  /** Write-protects what is found, in the same walk: -EPERM (1) where the range is not registered for WP_ASYNC. */
  readonly reprotect?: boolean
}
/**
 * PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst) of an address range of the pagemap's process.
 * `runs` (signed): how many runs of equal pages were written to `into`, or -errno (-ENOTTY (25): no pagemap, or a
 * kernel that has no scan; -EINVAL: parts of pages). `end`: the address that the walk came to, less than asked when
 * `into` was full.
 */
export function scanPages(
  pagemap: Descriptor,
  address: number,
  length: number,
  options: ScanOptions | undefined,
  into: Float64Array
): { readonly runs: number; readonly end: number }

/**
 * Which pages of a region were written, by whichever thread, without any fault to be served: WP_ASYNC and PAGEMAP_SCAN
 * (Linux 6.7). Runs come as pairs, offset and length in bytes, ascending and merged. Collected or closed, tracking
 * ends.
 */
export class DirtyTracker {
  /**
   * Registers the whole region and protects it: nothing counts as written yet.
   * @throws SystemError ENOTSUP (older kernel), EBUSY (another userfaultfd has it), EINVAL (a buffer's parts of pages)
   */
  constructor(region: Region)
  readonly closed: boolean
  /** What was written since the start or the last {@link getAndReprotect}. @throws SystemError EBADF when closed */
  get(): Float64Array
  /**
   * The same, and protects it again: each write is in exactly one result. What was found before a scan failed comes
   * with the next result. @throws SystemError EBADF when closed
   */
  getAndReprotect(): Float64Array
  /** Idempotent. To be called before the region of an ArrayBuffer is closed, which would keep the buffer otherwise. */
  close(): void
}

// ---------------------------------------------------------------------------------------------- page ranges

/** The start of the page that `address` lies in; `pageSize` as everywhere the host's by default. @throws RangeError */
export function alignDown(address: number, pageSize?: number): number
/** The first start of a page at or after `address`. @throws RangeError */
export function alignUp(address: number, pageSize?: number): number
/** The whole pages that have a byte of the range. @throws RangeError */
export function pagesCovering(
  address: number,
  length: number,
  pageSize?: number
): { readonly address: number; readonly length: number }
/** The whole pages that lie inside the range; length 0 when there is none. @throws RangeError */
export function pagesWithin(
  address: number,
  length: number,
  pageSize?: number
): { readonly address: number; readonly length: number }
/** Page numbers as runs: pairs, first page and number of pages, ascending. Order and repetition do not matter. */
export function runsOf(pages: ArrayLike<number>): Float64Array

/** Numbers a range takes in the array of {@link gatherRanges}. */
export const GATHER_WORDS: 4
/**
 * Many ranges of a region in one call (signed): from `at` on, `into` gets each range behind a gap that the caller fills
 * with a header of its own. `ranges` has GATHER_WORDS numbers a range: offset and length in the region, bytes of the
 * gap, and, written back, the byte that the whole range repeats, or -1. Of a uniform range only that byte is put into
 * `into`.
 *
 * Ends after `count` ranges, or when the next one does not fit; how many were taken. -errno, as of {@link Region.read},
 * when the first one cannot be read.
 */
export function gatherRanges(
  region: Region,
  ranges: Float64Array,
  count: number,
  into: Uint8Array,
  at: number
): number

// ---------------------------------------------------------------------------------------------- streams and sockets

/** read(2) (signed): bytes, 0 at end of file, or -errno (-EAGAIN = 11). EINTR is retried. */
export function read(descriptor: Descriptor, into: Uint8Array, offset: number, length: number): number
/** write(2), or send(2) with MSG_NOSIGNAL on a socket (signed): bytes or -errno. EINTR is retried. */
export function write(descriptor: Descriptor, from: Uint8Array, offset: number, length: number): number

/** socketpair(AF_UNIX), non-blocking, close-on-exec. */
export function socketpair(type: number): [Descriptor, Descriptor]
/**
 * sendmsg(2) with SCM_RIGHTS (signed): bytes sent or -errno. At least one byte of data, at most 253 descriptors
 * (RangeError). A descriptor that is closed gives -EBADF and nothing is sent. They travel with the first byte.
 */
export function sendDescriptors(socket: Descriptor, data: Uint8Array, descriptors: ReadonlyArray<Descriptor>): number
/**
 * recvmsg(2) with descriptors (close-on-exec). `bytes`: count, 0 at end of file, or -errno; `truncated`: the data or
 * the control message did not fit (descriptors that did arrive are still handed over). At most `most` are taken, 0 to
 * 253 (default): what a peer sends beyond it is closed by the kernel and reported as truncation.
 */
export function receiveDescriptors(
  socket: Descriptor,
  into: Uint8Array,
  most?: number
): { readonly bytes: number; readonly descriptors: ReadonlyArray<Descriptor>; readonly truncated: boolean }

/**
 * Non-blocking connect to a numeric IPv4 / IPv6 address (with %zone); wait for WRITABLE, then {@link socketError}. A
 * RangeError for names: they are not resolved here. @throws SystemError ENETUNREACH …
 */
export function connectTcp(host: string, port: number): Descriptor
/** Non-blocking listening socket (SO_REUSEADDR); port 0 takes a free one. @throws SystemError EADDRINUSE … */
export function listenTcp(host: string, port: number, backlog: number): Descriptor
/** Connects to a unix stream socket. @throws SystemError ENOENT, ECONNREFUSED, EAGAIN (its backlog is full) … */
export function connectUnix(path: string): Descriptor
/**
 * Binds (with `mode`, default 0o600 on the socket file, which is never more permissive for an instant) and listens. The
 * file stays when the socket is closed. @throws SystemError EADDRINUSE, ENAMETOOLONG …
 */
export function listenUnix(path: string, backlog: number, mode?: number): Descriptor
/**
 * Whether somebody listens at a unix path, found out without taking a connection of theirs: a SOCK_DGRAM connect.
 * "live" (EPROTOTYPE), "stale" (ECONNREFUSED), "absent" (ENOENT), or another errno's name.
 */
export function probeUnix(path: string): "live" | "stale" | "absent" | string
/** accept4(2): null when none is waiting. @throws SystemError */
export function accept(listener: Descriptor): Descriptor | null
/** SO_ERROR: 0 or a positive errno. */
export function socketError(socket: Descriptor): number
/** The bound address; `path` is empty for an unnamed unix socket. @throws SystemError */
export function localAddress(
  socket: Descriptor
): { readonly family: "IPv4" | "IPv6"; readonly host: string; readonly port: number } | {
  readonly family: "unix"
  readonly path: string
}
/** Bytes written and not yet taken (unix) or acknowledged (TCP) by the peer: SIOCOUTQ (signed). */
export function unsentBytes(socket: Descriptor): number
export function shutdown(socket: Descriptor, how: number): void
export function setNonBlocking(descriptor: Descriptor, on: boolean): void
export interface SocketOptions {
  readonly noDelay?: boolean
  readonly quickAck?: boolean
  readonly sendBuffer?: number
  readonly receiveBuffer?: number
  /** TCP_NOTSENT_LOWAT, bytes. */
  readonly notSentLowWater?: number
}
/** Sets what is given, after all of it has been checked. @throws SystemError */
export function setSocketOptions(socket: Descriptor, options: SocketOptions): void
/**
 * What a descriptor is: access mode (O_ACCMODE) and, for sockets, type (SO_TYPE, else 0), family (else null) and
 * whether it listens. @throws SystemError EBADF
 */
export function describe(descriptor: Descriptor): {
  readonly access: "r" | "w" | "rw"
  readonly kind: "socket" | "pipe" | "file" | "tty" | "other"
  readonly socketType: number
  readonly family: "unix" | "tcp" | "other" | null
  readonly listening: boolean
}
/** SO_PEERCRED of a connected unix socket. @throws SystemError ENOTSUP, ENOTCONN */
export function peerCredentials(
  socket: Descriptor
): { readonly pid: number; readonly uid: number; readonly gid: number }

// ---------------------------------------------------------------------------------------------- process

/**
 * Ends the process at once by _exit(2), status 0…255: no handler runs, no thread is joined. For a process with a thread
 * parked in a fault, which an ordinary exit would wait for.
 */
export function exitNow(status: number): never
/**
 * execve(2): replaces this process image, all its threads included. `args` follow the program's name, which is `file`,
 * as for child_process.spawn; `env` is the whole environment. Standard input, output and error stay open, and so do the
 * numbers in `keep`. Returns only by throwing, and then nothing has changed. @throws SystemError ENOENT, EACCES, EBADF
 * …
 */
export function execute(
  file: string,
  args: ReadonlyArray<string>,
  env: Record<string, string>,
  keep: ReadonlyArray<number>
): never
/** This thread's id as PAGEFAULT events report it: gettid(2). */
export function threadId(): number
/** CLOCK_MONOTONIC in nanoseconds, comparable between the processes of one machine. */
export function monotonicNanos(): number
