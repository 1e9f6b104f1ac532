// The least C++ that serves the guest of the fault benchmark: poll, read what is pending, a copy for each fault: of one
// page always, or with the argument "serve" of the page of a source that belongs there.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "UffdAbi.h"

using namespace uffd;

namespace {

constexpr int kSocket = 3;

int receive(uint64_t (&range)[2]) {
  iovec part{range, sizeof range};
  int fd = -1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(kSocket, &message, 0) != sizeof range) _exit(13);
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

}  // namespace

int main(int count, char**) {
  uint64_t range[2];
  const int fd = receive(range);
  const auto pageSize = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const bool serves = count > 1;
  const std::vector<uint8_t> source(serves ? range[1] : pageSize, 1);
  abi::Message batch[64];
  if (write(kSocket, "", 1) != 1) return 13;
  pollfd polled[] = {{fd, POLLIN, 0}, {kSocket, POLLIN, 0}};
  while (poll(polled, 2, -1) >= 0 && polled[1].revents == 0) {
    const ssize_t bytes = read(fd, batch, sizeof batch);
    for (ssize_t i = 0; i * static_cast<ssize_t>(sizeof *batch) < bytes; ++i) {
      const uint64_t address = batch[i].pagefault.address & ~(pageSize - 1);
      abi::Copy request{address, reinterpret_cast<uintptr_t>(source.data()) + (serves ? address - range[0] : 0), pageSize, 0, 0};
      if (ioctl(fd, abi::kCopy, &request) < 0 && request.done != -EEXIST) return 14;
    }
  }
}
