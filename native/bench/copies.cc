// The floor of the copy benchmark: pages of a stream put in place by the least C++. Each mode does by hand what the
// package does for its caller in one call (or, "single", in one call a page).
//
// Arguments: mode (single, contiguous, scattered), pages a burst, bursts. Prints pages a second of CPU time.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "UffdAbi.h"

using namespace uffd;

namespace {

/** Bytes between two pages of a stream. */
constexpr size_t kHeader = 9;

/** Of this thread's own time: another program's turn on the CPU is not counted. */
double now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

int fd = -1;

void copy(uint8_t* to, const uint8_t* from, size_t length) {
  abi::Copy request{reinterpret_cast<uintptr_t>(to), reinterpret_cast<uintptr_t>(from), length, 0, 0};
  if (ioctl(fd, abi::kCopy, &request) < 0) _exit(14);
}

}  // namespace

int main(int, char** arguments) {
  const char mode = arguments[1][0] == 's' && arguments[1][1] == 'i' ? '1' : arguments[1][0];
  const size_t pages = strtoull(arguments[2], nullptr, 0);
  const size_t bursts = strtoull(arguments[3], nullptr, 0);
  const auto pageSize = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t length = pages * pageSize;
  auto* memory = static_cast<uint8_t*>(
      mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | abi::kUserModeOnly));
  abi::Api api{abi::kApiVersion, 0, 0};
  abi::Register request{{reinterpret_cast<uintptr_t>(memory), length}, abi::kModeMissing, 0};
  if (ioctl(fd, abi::kApi, &api) < 0 || ioctl(fd, abi::kRegister, &request) < 0) return 11;
  const size_t stride = mode == 'c' ? pageSize : pageSize + kHeader;
  auto* source = static_cast<uint8_t*>(malloc(pages * stride));
  auto* scratch = static_cast<uint8_t*>(aligned_alloc(4096, length));
  std::memset(source, 1, pages * stride);
  std::memset(scratch, 1, length);
  double spent = 0;
  for (size_t burst = 0; burst < bursts; ++burst) {
    madvise(memory, length, MADV_DONTNEED);
    const double before = now();
    if (mode == 'c') {
      copy(memory, source, length);
    } else if (mode == '1') {
      for (size_t i = 0; i < pages; ++i) copy(memory + i * pageSize, source + i * stride, pageSize);
    } else {
      for (size_t i = 0; i < pages; ++i) std::memcpy(scratch + i * pageSize, source + i * stride, pageSize);
      copy(memory, scratch, length);
    }
    spent += now() - before;
  }
  std::printf("%.0f\n", static_cast<double>(pages * bursts) / spent);
}
