// Which pages of a region were written, by whichever thread, without a single fault to be served: the kernel notes the
// write where the protection was (WP_ASYNC) and PAGEMAP_SCAN reads it out, renewing the protection in the same walk.
"use strict"

const addon = require("./addon.js")
const { typeError } = require("./argument.js")

const { constants, Region, RUN_WORDS } = addon

/** Runs of one system call: 24 KiB; what does not fit takes a further call. */
const RUNS = 1024

const failure = (errno, syscall) => {
  const code = addon.errnoName(errno)
  return Object.assign(new Error(`${code}: ${syscall}`), { code, errno, syscall })
}

class DirtyTracker {
  #region
  #uffd
  #pagemap
  #runs = new Float64Array(RUNS * RUN_WORDS)
  /** Taken off the kernel and not handed out: the scan failed behind them. */
  #owed = []

  constructor(region) {
    if (!(region instanceof Region)) throw typeError("region is not a Region")
    const { FEATURE_PAGEFAULT_FLAG_WP, FEATURE_WP_ASYNC, FEATURE_WP_HUGETLBFS_SHMEM, FEATURE_WP_UNPOPULATED } =
      constants
    const { descriptor } = addon.open({
      required: FEATURE_PAGEFAULT_FLAG_WP + FEATURE_WP_ASYNC + FEATURE_WP_UNPOPULATED,
      optional: FEATURE_WP_HUGETLBFS_SHMEM,
      // No fault is ever delivered, so the faults of system calls need no privilege either.
      userModeOnly: true
    })
    this.#region = region
    this.#uffd = descriptor
    try {
      addon.register(descriptor, region.address, region.length, constants.MODE_WP)
      const status = addon.writeProtect(descriptor, region.address, region.length, constants.WRITEPROTECT_WP)
      if (status < 0) throw failure(-status, "ioctl UFFDIO_WRITEPROTECT")
      this.#pagemap = addon.openPagemap()
    } catch (error) {
      descriptor.close()
      throw error
    }
  }

  get closed() {
    return this.#uffd.fd < 0
  }

  get() {
    return this.#scan(false)
  }

  getAndReprotect() {
    return this.#scan(true)
  }

  #scan(reprotect) {
    if (this.closed) throw failure(9, "DirtyTracker")
    const { address, length } = this.#region
    const end = address + length
    const found = this.#owed.slice()
    const options = { required: constants.PAGE_IS_WRITTEN, reprotect }
    for (let at = address; at < end;) {
      const scanned = addon.scanPages(this.#pagemap, at, end - at, options, this.#runs)
      for (let i = 0; i < scanned.runs * RUN_WORDS; i += RUN_WORDS) {
        found.push(this.#runs[i] - address, this.#runs[i + 1] - this.#runs[i])
      }
      if (scanned.runs < 0 || scanned.end <= at) {
        if (reprotect) this.#owed = found
        throw failure(scanned.runs < 0 ? -scanned.runs : 5, "ioctl PAGEMAP_SCAN")
      }
      at = scanned.end
    }
    if (reprotect) this.#owed = []
    return merged(found)
  }

  close() {
    if (this.closed) return
    // The end of the userfaultfd ends the registration too; said in so many words, it also frees a buffer's region.
    if (!this.#region.closed) addon.unregister(this.#uffd, this.#region.address, this.#region.length)
    this.#uffd.close()
    this.#pagemap.close()
  }
}

/** Runs in ascending order without gaps of nothing between them: neighbours of two calls, and what was owed. */
const merged = (pairs) => {
  const order = Array.from({ length: pairs.length / 2 }, (_, i) => [pairs[2 * i], pairs[2 * i + 1]])
  order.sort((one, other) => one[0] - other[0])
  const runs = []
  for (const [start, length] of order) {
    const last = runs.length - 2
    if (last >= 0 && start <= runs[last] + runs[last + 1]) {
      runs[last + 1] = Math.max(runs[last + 1], start + length - runs[last])
    } else runs.push(start, length)
  }
  return Float64Array.from(runs)
}

exports.DirtyTracker = DirtyTracker
