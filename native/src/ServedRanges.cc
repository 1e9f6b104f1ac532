#include "ServedRanges.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "UffdResult.h"

namespace uffd {

size_t ServedRanges::behind(uint64_t address) const {
  const auto found = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](uint64_t at, const Range& range) { return at < range.end; });
  return static_cast<size_t>(found - ranges_.begin());
}

bool ServedRanges::add(Range range) {
  const size_t at = behind(range.start);
  if (at < ranges_.size() && ranges_[at].start < range.end) return false;
  ranges_.insert(ranges_.begin() + static_cast<ptrdiff_t>(at), std::move(range));
  return true;
}

void ServedRanges::remove(uint64_t start, uint64_t end) {
  for (size_t at = behind(start); at < ranges_.size() && ranges_[at].start < end;) {
    Range& range = ranges_[at];
    if (range.end > end) {
      Range rest{end, range.end, SharedTable::process().again(range.source), range.offset + (end - range.start), range.page};
      ranges_.insert(ranges_.begin() + static_cast<ptrdiff_t>(at) + 1, std::move(rest));
    }
    // SAFETY: the insertion may have moved what `range` referred to.
    Range& first = ranges_[at];
    if (first.start < start) {
      first.end = start;
      ++at;
    } else {
      ranges_.erase(ranges_.begin() + static_cast<ptrdiff_t>(at));
    }
  }
}

bool ServedRanges::answer(int fd, const abi::Message& fault) {
  if ((fault.pagefault.flags & (abi::kFaultWp | abi::kFaultMinor)) != 0) return false;
  const uint64_t address = fault.pagefault.address;
  const size_t at = behind(address);
  if (at == ranges_.size() || ranges_[at].start > address) return false;
  const Range& range = ranges_[at];
  const uint64_t into = (address - range.start) / range.page * range.page;
  const uint64_t offset = range.offset + into;
  const uint64_t start = range.start + into;
  const int64_t result = range.source->whileAlive([&]() -> int64_t {
    const int64_t refused = range.source->readable(offset, range.page);
    if (refused < 0) return refused;
    // SAFETY: a page of the mapping, which stays while this runs; where it goes is the kernel's to check.
    abi::Copy request{start, range.source->address() + offset, range.page, 0, 0};
    const int status = ioctl(fd, abi::kCopy, &request);
    return outcome(status, request.done);
  });
  if (result == static_cast<int64_t>(range.page)) {
    ++pages_;
    return true;
  }
  if (result != -EEXIST) return false;
  // Somebody else was quicker, perhaps without waking whoever waits.
  abi::Range there{start, range.page};
  return ioctl(fd, abi::kWake, &there) == 0;
}

}  // namespace uffd
