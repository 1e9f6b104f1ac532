// Many pages in one call. The caller describes what is to be put where in an array of plain numbers, an entry being a
// page or a run of pages; neighbours in memory become one ioctl, also when their bytes lie scattered in the source, as
// pages do between the headers of a network stream. Progress is written back into the entries, so that a call that
// stopped (an event is queued, a range is gone) is repeated with the same array and goes on where it was.
//
// Hot: no JavaScript and no allocation per page. Every word of an entry is read once, before anything happens: the
// array may be shared with a thread that changes it meanwhile.

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "UffdAbi.h"
#include "UffdResult.h"

namespace uffd {

namespace {

enum Word : size_t { kAddress, kSourceOffset, kLength, kKind, kDone, kStatus, kVectorWords };
constexpr uint64_t kCopy = 0, kZero = 1, kContinue = 2, kPoison = 3, kKindMask = 3;
constexpr uint64_t kNoWake = 0x10, kProtectIt = 0x20;

struct Entry {
  uint64_t address;
  const uint8_t* source;
  uint64_t length;
  uint64_t kind;
  uint64_t done;
};

/** Why an entry can never be carried out; null when it can. */
const char* readEntry(const double* words, View<uint8_t> source, Entry& entry) {
  uint64_t offset = 0;
  if (!exactInteger(words[kAddress], entry.address)) return "its address is not a safe integer";
  if (!exactInteger(words[kSourceOffset], offset)) return "its source offset is not a safe integer";
  if (!exactInteger(words[kLength], entry.length)) return "its length is not a safe integer";
  if (!exactInteger(words[kKind], entry.kind)) return "its kind is not an integer";
  if (!exactInteger(words[kDone], entry.done) || entry.done > entry.length) return "its progress is not within its length";
  if ((entry.kind & ~(kKindMask | kNoWake | kProtectIt)) != 0) return "its kind is unknown";
  const uint64_t kind = entry.kind & kKindMask;
  if ((entry.kind & kProtectIt) != 0 && (kind == kZero || kind == kPoison)) return "its kind cannot be protected";
  entry.source = nullptr;
  if (kind != kCopy) return nullptr;
  if (offset > source.length || entry.length > source.length - offset) return "it reaches beyond the source";
  entry.source = source.data + offset;
  return nullptr;
}

/** Zeros of one huge page, for memory that has no ZEROPAGE: a mapping that is never written takes no memory. */
class Zeros {
 public:
  ~Zeros() {
    if (data_ != MAP_FAILED) munmap(data_, length_);
  }
  const uint8_t* of(size_t length) {
    if (data_ == MAP_FAILED) {
      length_ = length;
      data_ = mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    return data_ == MAP_FAILED ? nullptr : static_cast<const uint8_t*>(data_);
  }

 private:
  void* data_ = MAP_FAILED;
  size_t length_ = 0;
};

class Vector {
 public:
  Vector(Addon& addon, int fd, size_t pageSize, std::vector<Entry> entries)
      : addon_(addon), fd_(fd), pageSize_(pageSize), entries_(std::move(entries)), status_(entries_.size(), 0) {}

  /** How many entries, from the first, are complete. Stops at the first error that is not "present already". */
  size_t install() {
    while (skipComplete() < entries_.size()) {
      int64_t error = carryOut(next_, runFrom(next_));
      // Of several entries none is to blame yet: a run may span two registrations, which is an error of the run alone.
      if (error < 0 && error != -EAGAIN && error != -ESRCH && ran_ > 1) error = carryOut(next_, next_ + 1);
      if (error < 0) {
        status_[next_] = error;
        break;
      }
    }
    return next_;
  }
  uint64_t done(size_t i) const { return entries_[i].done; }
  int64_t status(size_t i) const { return status_[i]; }

 private:
  size_t skipComplete() {
    while (next_ < entries_.size() && entries_[next_].done == entries_[next_].length) ++next_;
    return next_;
  }

  /** The end of the run of neighbours that one ioctl can do. */
  size_t runFrom(size_t first) {
    const Entry& head = entries_[first];
    uint64_t total = head.length - head.done;
    inPlace_ = true;
    size_t end = first + 1;
    for (; end < entries_.size(); ++end) {
      const Entry& before = entries_[end - 1];
      const Entry& entry = entries_[end];
      if (entry.kind != head.kind || entry.done != 0 || before.address + before.length != entry.address) break;
      if ((head.kind & kKindMask) == kCopy) {
        const bool follows = inPlace_ && before.source + before.length == entry.source;
        if (!follows && total + entry.length > Addon::kScratch) break;
        inPlace_ = inPlace_ && follows;
      }
      total += entry.length;
    }
    ran_ = end - first;
    return end;
  }

  /** Installs the entries [first, end), neighbours of one kind. 0, or -errno of where it stopped. */
  int64_t carryOut(size_t first, size_t end) {
    const Entry head = entries_[first];
    uint64_t total = head.length - head.done;
    for (size_t i = first + 1; i < end; ++i) total += entries_[i].length;
    const uint8_t* source = head.source == nullptr ? nullptr : head.source + head.done;
    if (head.source != nullptr && end - first > 1 && !inPlace_) source = gather(first, end);
    if (head.source != nullptr && source == nullptr) return -ENOMEM;
    const uint64_t start = head.address + head.done;
    for (uint64_t progress = 0; progress < total;) {
      const int64_t result = one(start + progress, source == nullptr ? nullptr : source + progress, total - progress,
                                 head.kind);
      uint64_t advance = static_cast<uint64_t>(result);
      if (result == -EEXIST) {
        advance = std::min<uint64_t>(pageSize_, total - progress);
        present(start + progress, advance, head.kind);
      } else if (result <= 0) {
        return result == 0 ? -EAGAIN : result;
      }
      credit(advance);
      progress += advance;
    }
    return 0;
  }

  /** The sources of a run, behind one another: one ioctl for many pages is worth a copy of each (bench/vector.js). */
  const uint8_t* gather(size_t first, size_t end) {
    uint8_t* scratch = addon_.scratch();
    if (scratch == nullptr) return nullptr;
    uint8_t* to = scratch;
    for (size_t i = first; i < end; ++i) {
      const uint64_t length = entries_[i].length - entries_[i].done;
      // SAFETY: runFrom ends a run that is to be gathered at kScratch bytes; the sources were checked by readEntry.
      std::memcpy(to, entries_[i].source + entries_[i].done, length);
      to += length;
    }
    return scratch;
  }

  int64_t one(uint64_t address, const uint8_t* source, uint64_t length, uint64_t kind) {
    uint64_t mode = 0;
    if ((kind & kNoWake) != 0) mode |= abi::kDontWake;
    if ((kind & kProtectIt) != 0) mode |= abi::kWithWp;
    switch (kind & kKindMask) {
      case kZero:
        if (pageSize_ == static_cast<size_t>(sysconf(_SC_PAGESIZE))) return fill(abi::kZeropage, address, length, mode);
        source = zeros_.of(pageSize_);
        if (source == nullptr) return -ENOMEM;
        return copy(address, source, std::min<uint64_t>(length, pageSize_), mode);
      case kContinue:
        return fill(abi::kContinue, address, length, mode);
      case kPoison:
        return fill(abi::kPoison, address, length, mode);
      default:
        return copy(address, source, length, mode);
    }
  }

  int64_t copy(uint64_t address, const uint8_t* source, uint64_t length, uint64_t mode) const {
    abi::Copy request{address, reinterpret_cast<uintptr_t>(source), length, mode, 0};
    const int status = ioctl(fd_, abi::kCopy, &request);
    return outcome(status, request.done);
  }

  int64_t fill(unsigned long number, uint64_t address, uint64_t length, uint64_t mode) const {
    abi::Fill request{{address, length}, mode, 0};
    const int status = ioctl(fd_, number, &request);
    return outcome(status, request.done);
  }

  /** A page that was there already may still have waiters, whom the call that brought it did not wake. */
  void present(uint64_t address, uint64_t length, uint64_t kind) {
    status_[skipComplete()] = -EEXIST;
    if ((kind & kNoWake) != 0) return;
    abi::Range range{address, length};
    ioctl(fd_, abi::kWake, &range);
  }

  void credit(uint64_t bytes) {
    while (bytes > 0) {
      Entry& entry = entries_[next_];
      const uint64_t part = std::min(bytes, entry.length - entry.done);
      entry.done += part;
      bytes -= part;
      if (entry.done == entry.length) ++next_;
    }
  }

  Addon& addon_;
  const int fd_;
  const size_t pageSize_;
  std::vector<Entry> entries_;
  std::vector<int64_t> status_;
  Zeros zeros_;
  size_t next_ = 0;
  size_t ran_ = 0;
  bool inPlace_ = true;
};

napi_value installPages(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  const View<double> vector = call.doubles(1, "vector");
  const uint64_t from = call.integer(2, "from");
  const uint64_t to = call.integer(3, "to");
  const View<uint8_t> source = call.bytes(4, "source");
  const auto host = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t page = call.absent(5) ? host : call.integer(5, "pageSize", host);
  if (call.failed()) return nullptr;
  if (!std::has_single_bit(page)) return call.failRange("pageSize is not a power of two: " + std::to_string(page));
  if (from > to || to > vector.length / kVectorWords) {
    return call.failRange("vector holds " + std::to_string(vector.length / kVectorWords) + " entries, not those from " +
                          std::to_string(from) + " to " + std::to_string(to));
  }
  std::vector<Entry> entries(to - from);
  for (size_t i = 0; i < entries.size(); ++i) {
    const char* wrong = readEntry(vector.data + (from + i) * kVectorWords, source, entries[i]);
    if (wrong != nullptr) return call.failRange("entry " + std::to_string(from + i) + " of vector: " + wrong);
  }
  if (uffd->fd() < 0) return call.number(-EBADF);

  Vector work(call.addon(), uffd->fd(), page, std::move(entries));
  const size_t complete = work.install();
  // What was not reached keeps its words.
  for (size_t i = 0; i < to - from && i <= complete; ++i) {
    double* words = vector.data + (from + i) * kVectorWords;
    words[kDone] = static_cast<double>(work.done(i));
    words[kStatus] = static_cast<double>(work.status(i));
  }
  return call.number(static_cast<double>(complete));
}

}  // namespace

void exportUffdVector(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "installPages", installPages);
  napi_value words = nullptr;
  napi_create_uint32(addon.env(), kVectorWords, &words);
  put(addon.env(), exports, "VECTOR_WORDS", words);
}

}  // namespace uffd
