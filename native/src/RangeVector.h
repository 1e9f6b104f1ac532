// Ranges of memory as one message of a stream socket, from where they lie: each behind a be64 with its offset and flags,
// a range whose bytes are all equal as that one byte. What the socket does not take is copied for the caller to send
// later, so that the stream never stops inside a record that nobody has.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "Mapping.h"
#include "PageExchange.h"

namespace uffd::exchange {

template <size_t kMost>
class RangeVector {
 public:
  /** Empties it; the flags are those of whole ranges and of uniform ones, which are whole, too, for 0. */
  void begin(uint64_t flags, uint64_t fillFlags) {
    flags_ = flags;
    fillFlags_ = fillFlags;
    ranges_ = parts_ = bytes_ = 0;
  }

  size_t ranges() const { return ranges_; }
  /** Bytes of all records. */
  size_t bytes() const { return bytes_; }

  /** With the memory held and room left: the byte that the range repeats, -1 when there is none, or below it -errno - 1. */
  int64_t add(const Mapping& memory, uint64_t offset, uint64_t length) {
    const int64_t refused = memory.readable(offset, length);
    if (refused < 0) return refused - 1;
    auto* from = reinterpret_cast<uint8_t*>(memory.address() + offset);
    const bool uniform = fillFlags_ != 0 && std::memcmp(from, from + 1, length - 1) == 0;
    uint8_t* head = heads_ + ranges_++ * kHead;
    putWord(head, offset | (uniform ? fillFlags_ : flags_));
    if (uniform) head[kWord] = *from;
    append(head, kWord + (uniform ? 1 : 0));
    if (!uniform) append(from, length);
    return uniform ? *from : -1;
  }

  /** With the memory held: bytes copied to `rest`, which the socket has not taken; -errno when it has taken nothing. */
  int64_t send(int fd, View<uint8_t> rest) {
    if (bytes_ > rest.length) return -ENOBUFS;
    msghdr message{};
    message.msg_iov = vector_;
    message.msg_iovlen = parts_;
    ssize_t sent = 0;
    do sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : static_cast<int64_t>(keep(static_cast<size_t>(sent), rest));
  }

  /** Copies what is behind the first `skip` bytes: how much that is. */
  size_t keep(size_t skip, View<uint8_t> rest) const {
    size_t left = 0;
    for (size_t i = 0; i < parts_; ++i) {
      const iovec& part = vector_[i];
      if (skip >= part.iov_len) {
        skip -= part.iov_len;
        continue;
      }
      std::memcpy(rest.data + left, static_cast<uint8_t*>(part.iov_base) + skip, part.iov_len - skip);
      left += part.iov_len - skip;
      skip = 0;
    }
    return left;
  }

 private:
  static constexpr size_t kHead = kWord + 1;

  void append(uint8_t* from, size_t length) {
    bytes_ += length;
    // Heads of uniform ranges lie one behind the other.
    if (parts_ > 0 && static_cast<uint8_t*>(vector_[parts_ - 1].iov_base) + vector_[parts_ - 1].iov_len == from) {
      vector_[parts_ - 1].iov_len += length;
    } else {
      vector_[parts_++] = {from, length};
    }
  }

  uint64_t flags_ = 0;
  uint64_t fillFlags_ = 0;
  uint8_t heads_[kMost * kHead];
  iovec vector_[2 * kMost];
  size_t ranges_ = 0;
  size_t parts_ = 0;
  size_t bytes_ = 0;
};

}  // namespace uffd::exchange
