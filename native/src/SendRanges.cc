// Many ranges of a region to a stream socket in one call, from where they lie: each behind a be64 with its offset and
// flags, a range whose bytes are all equal as that one byte. What the socket does not take is copied for the caller to
// send later, so that the stream never stops inside a record that nobody has.
//
// Hot: no JavaScript, no allocation, and no copy of what the socket takes.

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Mapping.h"
#include "PageExchange.h"
#include "Region.h"

namespace uffd::exchange {

namespace {

class Sending {
 public:
  /** Ranges of one call. */
  static constexpr size_t kMost = 64;

  Sending(View<double> ranges, size_t count, uint64_t flags, uint64_t fillFlags)
      : ranges_(ranges), count_(count), flags_(flags), fillFlags_(fillFlags) {}

  /** With the memory held: fills the vector. 0 or -errno; -EINVAL for a range that is not made of whole numbers. */
  int64_t gather(const Mapping& memory) {
    for (size_t i = 0; i < count_; ++i) {
      double* words = ranges_.data + i * kWords;
      uint64_t offset = 0;
      uint64_t length = 0;
      uint64_t gap = 0;
      if (!exactInteger(words[0], offset) || !exactInteger(words[1], length) || length == 0 ||
          !exactInteger(words[2], gap)) {
        return -EINVAL;
      }
      const int64_t refused = memory.readable(offset, length);
      if (refused < 0) return refused;
      const auto* from = reinterpret_cast<const uint8_t*>(memory.address() + offset);
      const bool uniform = std::memcmp(from, from + 1, length - 1) == 0;
      uint8_t* head = heads_ + i * kHead;
      putWord(head, offset | (uniform ? fillFlags_ : flags_));
      if (uniform) head[kWord] = *from;
      words[3] = uniform ? *from : -1;
      add(head, kWord + (uniform ? 1 : 0));
      if (!uniform) add(const_cast<uint8_t*>(from), length);
    }
    return 0;
  }

  /** With the memory held: bytes copied to `rest`, which the socket has not taken, or -errno. */
  int64_t send(int fd, View<uint8_t> rest) {
    if (total_ > rest.length) return -ENOBUFS;
    msghdr message{};
    message.msg_iov = parts_;
    message.msg_iovlen = used_;
    ssize_t sent = 0;
    do sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) return -errno;
    size_t skip = sent < 0 ? 0 : static_cast<size_t>(sent);
    size_t left = 0;
    for (size_t i = 0; i < used_; ++i) {
      const iovec& part = parts_[i];
      if (skip >= part.iov_len) {
        skip -= part.iov_len;
        continue;
      }
      std::memcpy(rest.data + left, static_cast<uint8_t*>(part.iov_base) + skip, part.iov_len - skip);
      left += part.iov_len - skip;
      skip = 0;
    }
    return static_cast<int64_t>(left);
  }

  static constexpr size_t kWords = 4;

 private:
  static constexpr size_t kHead = kWord + 1;

  void add(uint8_t* from, size_t length) {
    parts_[used_++] = {from, length};
    total_ += length;
  }

  const View<double> ranges_;
  const size_t count_;
  const uint64_t flags_;
  const uint64_t fillFlags_;
  uint8_t heads_[kMost * kHead];
  iovec parts_[2 * kMost];
  size_t used_ = 0;
  size_t total_ = 0;
};

napi_value sendRanges(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* link = call.handle<Descriptor>(0, "link");
  auto* region = call.handle<Region>(1, "region");
  const View<double> ranges = call.doubles(2, "ranges");
  const uint64_t count = call.integer(3, "count", 1, Sending::kMost);
  const uint64_t flags = call.integer(4, "flags", 0, 0xffff);
  const uint64_t fillFlags = call.integer(5, "fillFlags", 0, 0xffff);
  const View<uint8_t> rest = call.bytes(6, "rest");
  if (call.failed()) return nullptr;
  if (count > ranges.length / Sending::kWords) {
    return call.failRange("ranges holds " + std::to_string(ranges.length / Sending::kWords) + " ranges, not " +
                          std::to_string(count));
  }
  if (link->fd() < 0) return call.number(-EBADF);
  const int refused = region->unusable();
  if (refused != 0) return call.number(refused);
  Sending sending(ranges, count, flags, fillFlags);
  const Mapping& memory = *region->hold();
  const int64_t left = memory.whileAlive([&]() -> int64_t {
    const int64_t status = sending.gather(memory);
    return status < 0 ? status : sending.send(link->fd(), rest);
  });
  if (left == -EINVAL) return call.failRange("a range is not made of whole numbers");
  return call.number(static_cast<double>(left));
}

}  // namespace

}  // namespace uffd::exchange

namespace uffd {

void exportSendRanges(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "sendRanges", exchange::sendRanges);
}

}  // namespace uffd
