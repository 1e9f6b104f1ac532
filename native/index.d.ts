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

/** Constants of `<linux/userfaultfd.h>` and the system calls used here. */
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
  readonly COPY_DONTWAKE: 1
  readonly COPY_WP: 2
  readonly MADV_DONTNEED: 4
  readonly MADV_REMOVE: 9
  readonly MADV_DONTFORK: 10
  readonly MADV_NOHUGEPAGE: 15
  readonly MADV_POPULATE_READ: 22
  readonly MADV_POPULATE_WRITE: 23
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
  /** Another descriptor of the same open file description (F_DUPFD_CLOEXEC). */
  dup(): Descriptor
  /** Idempotent. */
  close(): void
  /** Gives up ownership without closing and returns the number. @throws SystemError EBADF when already closed */
  release(): number
  /**
   * Takes ownership of an open number and sets FD_CLOEXEC.
   * @throws SystemError EBADF when it is not open, EBUSY when another Descriptor of this process owns it
   */
  static adopt(fd: number): Descriptor
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
 * dropped where it needs a capability that the process lacks.
 * @throws SystemError EPERM (the message names the remedy), ENOSYS, ENOTSUP (a required feature is missing)
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

/**
 * UFFDIO_REGISTER of a range of this process: whole pages, MODE_* bits. Returns the range's ioctl bits, a bit an ioctl
 * number (3 COPY, 4 ZEROPAGE, 7 CONTINUE, 8 POISON ...). @throws SystemError EINVAL, EBUSY, EBADF
 */
export function register(uffd: Descriptor, address: number, length: number, mode: number): number
/** UFFDIO_UNREGISTER. @throws SystemError */
export function unregister(uffd: Descriptor, address: number, length: number): void

/**
 * UFFDIO_COPY (signed): bytes installed or -errno, the kernel's result field. Fewer bytes than asked: it met a present
 * page, go on behind them and get -EEXIST (17, it is there: wake its waiters). -EAGAIN (11): an event is queued, read it
 * first. -ENOENT (2): not registered (any more). -ESRCH (3): the target process is gone. `source` may be unaligned and
 * is pinned during the call. mode: COPY_*.
 */
export function copy(
  uffd: Descriptor,
  address: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
  mode: number
): number
/** UFFDIO_ZEROPAGE (signed): bytes or -errno, as {@link copy}. mode 1 = do not wake. Not on hugetlb memory. */
export function zeropage(uffd: Descriptor, address: number, length: number, mode: number): number
/**
 * UFFDIO_CONTINUE (signed): maps pages that the memfd already has; bytes or -errno: -EFAULT (14) when the memfd lacks
 * the page, -EEXIST (17) when it is mapped. mode 1 = do not wake.
 */
export function continueRange(uffd: Descriptor, address: number, length: number, mode: number): number
/** UFFDIO_WAKE (signed): 0 or -errno. */
export function wake(uffd: Descriptor, address: number, length: number): number
/** UFFDIO_POISON (signed): bytes or -errno. Whoever touches a page of it gets SIGBUS, until a {@link copy} over it. */
export function poison(uffd: Descriptor, address: number, length: number): number

/** Words an event takes in the array of {@link readEvents}. */
export const EVENT_WORDS: 4
/**
 * Reads pending events in one batch (signed): their number, 0 when none is pending, or -errno.
 * Each takes four numbers: event, a, b, c.
 * PAGEFAULT: flags, address, thread id · FORK: the new descriptor's number (the caller adopts it), 0, 0 ·
 * REMAP: from, to, length · REMOVE, UNMAP: start, end, 0.
 * The kernel gives page faults before removals, whatever came first: read all, apply removals, then serve faults.
 * -ENOTTY (25) when the descriptor is not a userfaultfd.
 */
export function readEvents(uffd: Descriptor, into: Float64Array): number

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
  /** @throws SystemError EBADF when closed */
  start(onBurst: (count: number) => void): void
  /** As of {@link Poller}. */
  pause(): void
  resume(): void
  ref(): void
  unref(): void
  /** Idempotent; no callback comes afterwards. */
  close(): void
}

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
  readonly closed: boolean
  /**
   * Private anonymous mapping, zero-filled, not populated, MADV_DONTFORK left to the caller. `length` is a multiple of
   * the page size, else a RangeError. @throws SystemError
   */
  static anonymous(length: number): Region
  /**
   * Shared mapping of a new memfd, which is sealed against shrinking and growing. `hugetlb`: bytes of a huge page, of
   * which `length` is a multiple. @throws SystemError ENOMEM when the host has no such pages
   */
  static memfd(name: string, length: number, options?: { readonly hugetlb?: number }): Region
  /**
   * Shared mapping of an existing descriptor (a second view of a memfd), whole pages. A RangeError when the file is
   * shorter. @throws SystemError ENODEV when it is not a regular file or memfd, EACCES
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
  /** @throws Error with code ESTALE when no holder is left */
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
   * madvise(2) (signed): 0 or -errno; -EINVAL for parts of pages and for advice that reaches beyond the range (hardware
   * poison, guards). With EVENT_REMOVE on it waits until the event is read: never on the serving thread.
   */
  madvise(offset: number, length: number, advice: number): number
  /** mprotect(PROT_NONE) (signed), whole pages: makes later touches fault with SIGSEGV. */
  protectNone(offset: number, length: number): number
  /**
   * Lets go of this holder. Idempotent. The last one unmaps, which waits for a reader of the event where the range is
   * registered with EVENT_UNMAP: close the userfaultfd first.
   */
  close(): void
}

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
 * numbers in `keep`. Returns only by throwing, and then nothing has changed. @throws SystemError ENOENT, EACCES, EBADF …
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
