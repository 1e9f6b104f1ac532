// A process of its own whose memory a test serves: it opens a userfaultfd, registers some pages, hands the descriptor
// over and then does what it is told, one command at a time. It keeps no descriptor of its own, and ends with the
// socket.
//
// Arguments: features of UFFDIO_API, modes of UFFDIO_REGISTER, pages. Descriptor 3: a SOCK_SEQPACKET socket.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "UffdAbi.h"

using namespace uffd;

namespace {

constexpr int kSocket = 3;

enum Command : uint64_t { kTouch, kWrite, kFork, kRemap, kUnmap, kAdvise };

struct Request {
  uint64_t command;
  uint64_t address;
  uint64_t length;
  uint64_t value;
};

struct Hello {
  uint64_t address;
  uint64_t pid;
  uint64_t ioctls;
};

/** An answer of exactly a mistake's place: the test prints it. */
[[noreturn]] void die(int status) { _exit(status); }

void handOver(int fd, const Hello& hello) {
  iovec part{const_cast<Hello*>(&hello), sizeof hello};
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
  if (sendmsg(kSocket, &message, 0) < 0) die(14);
}

uint8_t byteAt(uint64_t address) { return *reinterpret_cast<volatile uint8_t*>(address); }

int64_t carryOut(const Request& request) {
  auto* memory = reinterpret_cast<void*>(request.address);
  switch (request.command) {
    case kTouch:
      return byteAt(request.address);
    case kWrite:
      *static_cast<volatile uint8_t*>(memory) = static_cast<uint8_t>(request.value);
      return 0;
    case kFork: {
      const pid_t child = fork();
      if (child == 0) _exit(byteAt(request.address));
      int status = 0;
      if (child < 0 || waitpid(child, &status, 0) < 0) return -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    }
    case kRemap: {
      void* elsewhere = mremap(memory, request.length, request.length, MREMAP_MAYMOVE | MREMAP_FIXED,
                               reinterpret_cast<void*>(request.value));
      return elsewhere == MAP_FAILED ? -1 : static_cast<int64_t>(reinterpret_cast<uintptr_t>(elsewhere));
    }
    case kUnmap:
      return munmap(memory, request.length);
    case kAdvise:
      return madvise(memory, request.length, static_cast<int>(request.value));
    default:
      die(15);
  }
}

}  // namespace

int main(int, char** arguments) {
  const uint64_t features = strtoull(arguments[1], nullptr, 0);
  const uint64_t mode = strtoull(arguments[2], nullptr, 0);
  const size_t length = strtoull(arguments[3], nullptr, 0) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  // Twice the room: the second half is where a remapping goes.
  void* memory = mmap(nullptr, 2 * length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  abi::Api api{abi::kApiVersion, features, 0};
  if (memory == MAP_FAILED || fd < 0 || ioctl(fd, abi::kApi, &api) < 0) die(11);
  abi::Register request{{reinterpret_cast<uintptr_t>(memory), length}, mode, 0};
  if (ioctl(fd, abi::kRegister, &request) < 0) die(12);
  handOver(fd, {request.range.start, static_cast<uint64_t>(getpid()), request.ioctls});
  close(fd);
  Request next{};
  while (recv(kSocket, &next, sizeof next, 0) == sizeof next) {
    const int64_t result = carryOut(next);
    if (send(kSocket, &result, sizeof result, MSG_NOSIGNAL) != sizeof result) die(13);
  }
}
