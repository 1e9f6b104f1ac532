// The pages that one call of an exchange has dealt with: what the caller's bitmaps do not say yet.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>

namespace uffd::exchange {

class SeenPages {
 public:
  bool hasRoom(size_t runs) const { return count_ + runs <= kMost; }

  void add(uint64_t first, uint64_t pages) {
    runs_[count_++] = {first, first + pages};
    if (pages == 1) singles_.set(first % kSlots);
    else several_ = true;
  }

  bool has(uint64_t page) const { return without(page, 1) == 0; }

  /** How many of `count` pages from `first` on are not among them, up to the first that is. */
  uint64_t without(uint64_t first, uint64_t count) const {
    // Most questions are about one page, and answered by a bit.
    if (count == 1 && !several_ && !singles_.test(first % kSlots)) return 1;
    for (size_t i = 0; i < count_; ++i) {
      if (runs_[i].past <= first || runs_[i].first >= first + count) continue;
      if (runs_[i].first <= first) return 0;
      count = runs_[i].first - first;
    }
    return count;
  }

 private:
  struct Run {
    uint64_t first;
    uint64_t past;
  };
  static constexpr size_t kMost = 1024;
  static constexpr size_t kSlots = 4096;

  Run runs_[kMost];
  size_t count_ = 0;
  std::bitset<kSlots> singles_;
  bool several_ = false;
};

}  // namespace uffd::exchange
