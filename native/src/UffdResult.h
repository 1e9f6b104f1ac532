// What a range ioctl of a userfaultfd came to, as one signed number.
#pragma once

#include <cerrno>
#include <cstdint>

namespace uffd {

/**
 * The kernel's result field: bytes done, or a negative errno. A failed ioctl may still have done something: then the
 * field says how much, and errno (EAGAIN) only that it was not all.
 */
inline int64_t outcome(int status, int64_t field) {
  if (status == 0 || field != 0) return field;
  return -errno;
}

}  // namespace uffd
