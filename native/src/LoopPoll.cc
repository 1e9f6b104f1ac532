#include "LoopPoll.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "Descriptor.h"

// The part of <uv.h> used here, with handles as plain memory.
extern "C" {
typedef void (*uv_poll_cb)(void* handle, int status, int events);
typedef void (*uv_close_cb)(void* handle);
int uv_poll_init(uv_loop_s* loop, void* handle, int fd);
int uv_poll_start(void* handle, int events, uv_poll_cb callback);
int uv_poll_stop(void* handle);
void uv_close(void* handle, uv_close_cb callback);
void uv_ref(void* handle);
void uv_unref(void* handle);
size_t uv_handle_size(int type);
const char* uv_handle_type_name(int type);
void uv_handle_set_data(void* handle, void* data);
void* uv_handle_get_data(const void* handle);
}

namespace uffd {

namespace {

/** UV_POLL of enum uv_handle_type; checked by its name before the first use. */
constexpr int kPollType = 8;

bool libuvIsAsDeclared() {
  const char* name = uv_handle_type_name(kPollType);
  return name != nullptr && std::strcmp(name, "poll") == 0;
}

}  // namespace

struct LoopPoll::Callbacks {
  static void ready(void* handle, int status, int events) {
    auto* self = static_cast<LoopPoll*>(uv_handle_get_data(handle));
    if (self->listener_ != nullptr) self->listener_->ready(status, events);
  }
  static void closed(void* handle) {
    auto* self = static_cast<LoopPoll*>(uv_handle_get_data(handle));
    Addon& addon = self->addon_;
    std::free(handle);
    delete self;
    addon.loopHandleClosed();
  }
};

LoopPoll* LoopPoll::open(Addon& addon, int fd, Listener& listener, int& error) {
  if (!libuvIsAsDeclared()) {
    error = ENOSYS;
    return nullptr;
  }
  const int own = duplicate(fd);
  if (own < 0) {
    error = errno;
    return nullptr;
  }
  // SAFETY: libuv says how large its handle is, and the memory stays until the close callback.
  void* handle = std::calloc(1, uv_handle_size(kPollType));
  if (handle == nullptr) {
    error = ENOMEM;
    ::close(own);
    return nullptr;
  }
  const int status = uv_poll_init(addon.loop(), handle, own);
  if (status < 0) {
    // A handle whose init failed is not in the loop.
    error = -status;
    std::free(handle);
    ::close(own);
    return nullptr;
  }
  auto* poll = new LoopPoll(addon, own, listener, handle);
  uv_handle_set_data(handle, poll);
  addon.loopHandleOpened();
  return poll;
}

int LoopPoll::start(int events) { return uv_poll_start(handle_, events, Callbacks::ready); }
void LoopPoll::stop() { uv_poll_stop(handle_); }
void LoopPoll::ref() { uv_ref(handle_); }
void LoopPoll::unref() { uv_unref(handle_); }

void LoopPoll::close() {
  listener_ = nullptr;
  uv_close(handle_, Callbacks::closed);
  // uv_close has taken the number out of epoll, so that it may be reused from now on.
  ::close(fd_);
  fd_ = -1;
}

}  // namespace uffd
