// Whether the constants and layouts of UffdAbi.h and PagemapAbi.h are those of the running kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace uffd {

struct Check {
  const char* name;
  /** What came out otherwise than written in the headers; empty when all is well. */
  std::string wrong;
  /** The kernel does not offer it, so there is nothing to compare. */
  bool offered;
};

/** Tries each ioctl on memory of its own. `whole`: also those that need a second thread. About 0.1 ms, 1 ms when whole. */
std::vector<Check> selfTest(bool whole);

}  // namespace uffd
