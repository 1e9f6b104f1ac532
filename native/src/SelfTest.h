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

/** Tries each ioctl on memory of its own; `whole`: all of them, one with a second thread (some milliseconds). */
std::vector<Check> selfTest(bool whole);

}  // namespace uffd
