// The guest of the fault benchmark: threads that touch missing pages, each its own, and the time of every touch.
// Whoever has the other end of descriptor 3 serves them; C and Node serve the very same guest.
//
// Arguments: threads, pages a thread. Prints one line of JSON.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "UffdAbi.h"

using namespace uffd;

namespace {

constexpr int kSocket = 3;

uint64_t now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000 + static_cast<uint64_t>(time.tv_nsec);
}

void handOver(int fd, uint64_t start, uint64_t length) {
  char byte = 0;
  uint64_t range[] = {start, length};
  iovec part{range, sizeof range};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  // The answer says that the other side is ready to serve.
  if (sendmsg(kSocket, &message, 0) != sizeof range || read(kSocket, &byte, 1) != 1) _exit(13);
}

void touch(uint8_t* memory, size_t pages, size_t pageSize, uint64_t seed, std::vector<uint64_t>& nanos) {
  std::vector<size_t> order(pages);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  for (const size_t page : order) {
    const uint64_t before = now();
    *static_cast<volatile uint8_t*>(memory + page * pageSize);
    nanos.push_back(now() - before);
  }
}

}  // namespace

int main(int, char** arguments) {
  const size_t threads = strtoull(arguments[1], nullptr, 0);
  const size_t pages = strtoull(arguments[2], nullptr, 0);
  const auto pageSize = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t length = threads * pages * pageSize;
  auto* memory = static_cast<uint8_t*>(
      mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | abi::kUserModeOnly));
  abi::Api api{abi::kApiVersion, 0, 0};
  abi::Register request{{reinterpret_cast<uintptr_t>(memory), length}, abi::kModeMissing, 0};
  if (ioctl(fd, abi::kApi, &api) < 0 || ioctl(fd, abi::kRegister, &request) < 0) return 11;
  handOver(fd, reinterpret_cast<uintptr_t>(memory), length);

  std::vector<std::vector<uint64_t>> nanos(threads);
  std::vector<std::thread> running;
  const uint64_t before = now();
  for (size_t i = 0; i < threads; ++i) {
    nanos[i].reserve(pages);
    running.emplace_back(touch, memory + i * pages * pageSize, pages, pageSize, i + 1, std::ref(nanos[i]));
  }
  for (std::thread& thread : running) thread.join();
  const double seconds = static_cast<double>(now() - before) / 1e9;
  std::vector<uint64_t> all;
  for (const auto& each : nanos) all.insert(all.end(), each.begin(), each.end());
  std::sort(all.begin(), all.end());
  const auto micros = [&](double part) {
    return static_cast<double>(all[static_cast<size_t>(part * static_cast<double>(all.size() - 1))]) / 1000;
  };
  std::printf("{\"p50\":%.2f,\"p99\":%.2f,\"perSecond\":%.0f}\n", micros(0.5), micros(0.99),
              static_cast<double>(all.size()) / seconds);
}
