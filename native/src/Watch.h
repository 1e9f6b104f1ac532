// What Poller and FaultPoller share: a LoopPoll, the callback, and whether it is running. A running watch keeps its JS
// object alive (its callback must come); a paused one may be collected, which closes it.
#pragma once

#include "Addon.h"
#include "Arguments.h"
#include "LoopPoll.h"

namespace uffd {

class Watch : public Handle, protected LoopPoll::Listener {
 public:
  explicit Watch(Addon& addon) : Handle(addon, Rank::poller) {}
  ~Watch() override = default;

  /** 0 or a positive errno. */
  int open(int fd);
  /** Once, with the object that owns this watch. */
  void attach(napi_value self);
  bool isOpen() const { return poll_ != nullptr; }
  /** Replaces the callback and what is waited for; 0 events is a pause. 0 or -errno. */
  int begin(int events, napi_value callback);
  void pause();
  int resume();
  void ref();
  void unref();
  void shut() override;

 protected:
  bool running() const { return running_; }
  int events() const { return events_; }
  int fd() const { return poll_ == nullptr ? -1 : poll_->fd(); }
  /** Calls the callback with numbers, as an entry from the event loop. May shut this watch. */
  void call(size_t count, const double* numbers) { enter(callback_, count, numbers); }
  /** The same for a function of our own, which calls the callback by `callOnce`. */
  void callInside(napi_ref function) { enter(function, 0, nullptr); }
  /** Calls the callback from within such a function; false with a pending exception. May shut this watch. */
  bool callOnce(napi_value self, int64_t number);
  napi_env env() const { return addon_->env(); }

 private:
  void setRunning(bool running);
  void enter(napi_ref function, size_t count, const double* numbers);

  LoopPoll* poll_ = nullptr;
  napi_ref self_ = nullptr;
  napi_ref callback_ = nullptr;
  int events_ = 0;
  bool running_ = false;
};

/** Methods with the same body in both classes. */
template <class T>
struct WatchMethods {
  static napi_value pause(napi_env env, napi_callback_info info) { return each(env, info, &Watch::pause); }
  static napi_value ref(napi_env env, napi_callback_info info) { return each(env, info, &Watch::ref); }
  static napi_value unref(napi_env env, napi_callback_info info) { return each(env, info, &Watch::unref); }
  static napi_value close(napi_env env, napi_callback_info info) { return each(env, info, &Watch::shut); }
  static napi_value resume(napi_env env, napi_callback_info info) {
    Arguments call(env, info);
    T* self = call.owner<T>();
    if (call.failed()) return nullptr;
    const int status = self->resume();
    return status < 0 ? call.failErrno(-status, "uv_poll_start") : call.undefined();
  }

 private:
  static napi_value each(napi_env env, napi_callback_info info, void (Watch::*method)()) {
    Arguments call(env, info);
    T* self = call.owner<T>();
    if (call.failed()) return nullptr;
    (self->*method)();
    return call.undefined();
  }
};

}  // namespace uffd
