// The kernel's PAGEMAP_SCAN of Linux 6.7 and later (Documentation/admin-guide/mm/pagemap.rst), written out for the same
// reason as UffdAbi.h.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace uffd::abi {

struct PageScan {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walkEnd;
  uint64_t runs;
  uint64_t runsRoom;
  uint64_t mostPages;
  uint64_t inverted;
  uint64_t required;
  uint64_t anyOf;
  uint64_t returned;
};
struct PageRun {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
static_assert(sizeof(PageScan) == 96 && sizeof(PageRun) == 24);

constexpr unsigned long kPageScan = _IOWR('f', 16, PageScan);
static_assert(kPageScan == 0xc0606610);

/** kScanCheckWpAsync: EPERM for a range that is not tracked, instead of protecting what nobody would unprotect. */
enum ScanFlag : uint64_t { kScanProtect = 1, kScanCheckWpAsync = 2 };

enum Category : uint64_t {
  kPageWpAllowed = 1 << 0,
  kPageWritten = 1 << 1,
  kPageFile = 1 << 2,
  kPagePresent = 1 << 3,
  kPageSwapped = 1 << 4,
  kPagePfnZero = 1 << 5,
  kPageHuge = 1 << 6,
  kPageSoftDirty = 1 << 7,
  kPageGuard = 1 << 8
};

}  // namespace uffd::abi
