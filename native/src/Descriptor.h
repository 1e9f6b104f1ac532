// The one owner of a file descriptor in JavaScript: a number that is closed once, by close(), by the garbage collector
// or by the end of its environment, and is -1 afterwards. Another environment gets a number of its own, by token.
#pragma once

#include "Addon.h"
#include "Arguments.h"
#include "SharedTable.h"

namespace uffd {

class Descriptor final : public Handle {
 public:
  static constexpr ClassId kClass = ClassId::descriptor;
  static constexpr const char* kName = "Descriptor";

  /** Takes ownership of an open number. */
  Descriptor(Addon& addon, int fd, const Origin& origin);
  ~Descriptor() override { shut(); }

  /** The number, -1 once closed. */
  int fd() const { return fd_; }
  void shut() override;
  /** Gives up the number without closing it. */
  int release();

  /** A userfaultfd that was opened in this process. */
  bool isOwn() const { return origin_.own; }
  /** An own one that was opened with EVENT_UNMAP. */
  bool tellsOfUnmappings() const { return origin_.unmapEvents; }
  /** For `adopt` in another environment; 0 when the number was closed behind our back. */
  uint64_t token() const;
  /** Whether reads give userfaultfd messages; found out once, without reading. */
  bool isUserfaultfd();
  /** Learnt by write: whether send(2) works here, so that a broken connection gives EPIPE and no signal. */
  enum class Sends : uint8_t { unknown, yes, no } sends = Sends::unknown;

  /** A new JS object that owns `fd`, which is closed when that fails. Null with a pending exception. */
  static napi_value wrap(Addon& addon, int fd, const Origin& origin = {});
  static void define(Addon& addon, napi_value exports);

 private:
  int fd_;
  const Origin origin_;
  uint64_t claim_;
  enum class Kind : uint8_t { unknown, userfaultfd, other } kind_ = Kind::unknown;
};

/** A duplicate of an open number with close-on-exec, never 0, 1 or 2; -1 and errno. */
int duplicate(int fd);
/** Whether an open number is a userfaultfd; nothing is read. */
bool isUserfaultfd(int fd);

}  // namespace uffd
