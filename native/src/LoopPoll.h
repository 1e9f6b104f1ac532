// One uv_poll handle on a descriptor of its own in the environment's event loop. libuv's header does not come with the
// N-API headers, so the few functions used are declared in LoopPoll.cc; they are part of Node's stable ABI.
//
// A uv handle is closed in two steps: close() stops everything and detaches the owner, the loop's close callback frees
// the memory. The environment waits for that callback (Addon::loopHandleClosed).
#pragma once

#include "Addon.h"

namespace uffd {

class LoopPoll {
 public:
  static constexpr int kReadable = 1;
  static constexpr int kWritable = 2;
  static constexpr int kDisconnect = 4;

  class Listener {
   public:
    virtual void ready(int status, int events) = 0;

   protected:
    ~Listener() = default;
  };

  /** Polls a duplicate of `fd`, which becomes non-blocking. Null, and `error` a positive errno, when that fails. */
  static LoopPoll* open(Addon& addon, int fd, Listener& listener, int& error);

  int fd() const { return fd_; }
  /** 0 or -errno. */
  int start(int events);
  void stop();
  void ref();
  void unref();
  /** Frees this object, later. No call of the listener comes afterwards. */
  void close();

 private:
  LoopPoll(Addon& addon, int fd, Listener& listener, void* handle)
      : addon_(addon), fd_(fd), listener_(&listener), handle_(handle) {}
  struct Callbacks;

  Addon& addon_;
  int fd_;
  Listener* listener_;
  /** The uv_poll_t: its size is known to libuv alone. */
  void* handle_;
};

}  // namespace uffd
