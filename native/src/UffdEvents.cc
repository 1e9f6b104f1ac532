#include "UffdEvents.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "Descriptor.h"
#include "Exports.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

/** Messages of one read(2): 2 KiB of stack, and more threads than fault at once on most guests. */
constexpr size_t kBatch = 64;

}  // namespace

void decodeEvent(Addon& addon, const abi::Message& message, double* words) {
  words[0] = message.event;
  words[1] = words[2] = words[3] = 0;
  switch (message.event) {
    case abi::kPagefault:
      words[1] = static_cast<double>(message.pagefault.flags);
      words[2] = static_cast<double>(message.pagefault.address);
      words[3] = message.pagefault.thread;
      break;
    case abi::kFork:
      words[1] = message.fork.fd;
      addon.noteForked(static_cast<int>(message.fork.fd));
      break;
    case abi::kRemap:
      words[1] = static_cast<double>(message.remap.from);
      words[2] = static_cast<double>(message.remap.to);
      words[3] = static_cast<double>(message.remap.length);
      break;
    case abi::kRemove:
    case abi::kUnmap:
      words[1] = static_cast<double>(message.remove.start);
      words[2] = static_cast<double>(message.remove.end);
      break;
    default:
      break;  // An event of a later kernel: its number is all that is known.
  }
}

namespace {

napi_value readEventsOf(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  const View<double> into = call.doubles(1, "into");
  if (call.failed()) return nullptr;
  if (into.length < kEventWords) return call.failRange("into holds less than one event of 4 numbers");
  if (uffd->fd() < 0) return call.number(-EBADF);
  if (!uffd->isUserfaultfd()) return call.number(-ENOTTY);
  return call.number(static_cast<double>(readEvents(call.addon(), uffd->fd(), into)));
}

}  // namespace

int64_t readEvents(Addon& addon, int fd, View<double> into) {
  abi::Message batch[kBatch];
  const size_t room = into.length / kEventWords;
  size_t count = 0;
  while (count < room) {
    const size_t wanted = std::min(kBatch, room - count);
    const ssize_t bytes = read(fd, batch, wanted * sizeof(abi::Message));
    if (bytes < 0) {
      if (errno == EINTR) continue;
      // What has been read must be delivered; the error, if it is one, comes again.
      if (errno == EAGAIN || count > 0) break;
      return -errno;
    }
    const size_t got = static_cast<size_t>(bytes) / sizeof(abi::Message);
    // SAFETY: got ≤ wanted ≤ room - count, so the words are inside the array.
    for (size_t i = 0; i < got; ++i) decodeEvent(addon, batch[i], into.data + (count + i) * kEventWords);
    count += got;
    if (got < wanted) break;  // The kernel gives all it has: another read would only say EAGAIN.
  }
  return static_cast<int64_t>(count);
}

void exportUffdEvents(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "readEvents", readEventsOf);
  napi_value words = nullptr;
  napi_create_uint32(addon.env(), kEventWords, &words);
  put(addon.env(), exports, "EVENT_WORDS", words);
}

}  // namespace uffd
