// Ranges of registered memory whose missing pages are brought from a region of this process, without JavaScript between
// the fault and its answer. It answers what is beyond doubt, a missing page that the kernel takes; everything else is
// left to whoever asked: other kinds of fault, other addresses, and each error but "present already".
//
// Hot: nothing is allocated per fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "SharedTable.h"
#include "UffdAbi.h"

namespace uffd {

class ServedRanges {
 public:
  struct Range {
    uint64_t start;
    uint64_t end;
    /** A holder of its own: the region may be closed by its other holders. */
    Hold source;
    /** Of the byte in `source` that belongs at `start`. */
    uint64_t offset;
    /** Bytes installed at once; a power of two that divides all of the above. */
    uint64_t page;
  };

  bool empty() const { return ranges_.empty(); }
  /** False, and unchanged, when it overlaps with one that is served. */
  bool add(Range range);
  /** Serves nothing in [start, end) any more. */
  void remove(uint64_t start, uint64_t end);
  void clear() { ranges_.clear(); }
  /** Whether a fault is answered now. */
  bool answer(int fd, const abi::Message& fault);
  /** Pages installed. */
  uint64_t pages() const { return pages_; }

 private:
  /** The first range that ends behind `address`. */
  size_t behind(uint64_t address) const;

  /** By address. */
  std::vector<Range> ranges_;
  uint64_t pages_ = 0;
};

}  // namespace uffd
