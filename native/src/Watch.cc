#include "Watch.h"

#include <utility>

namespace uffd {

namespace {

constexpr size_t kMostNumbers = 2;

}  // namespace

int Watch::open(int fd) {
  int error = 0;
  poll_ = LoopPoll::open(*addon_, fd, *this, error);
  return poll_ == nullptr ? error : 0;
}

void Watch::attach(napi_value self) { napi_create_reference(env(), self, 0, &self_); }

void Watch::setRunning(bool running) {
  if (running == running_) return;
  running_ = running;
  if (running) {
    napi_reference_ref(env(), self_, nullptr);
  } else {
    napi_reference_unref(env(), self_, nullptr);
  }
}

int Watch::begin(int events, napi_value callback) {
  // Most calls change only the events: the reference stays then.
  napi_value current = nullptr;
  bool same = false;
  if (callback_ != nullptr && napi_get_reference_value(env(), callback_, &current) == napi_ok) {
    napi_strict_equals(env(), current, callback, &same);
  }
  if (!same) {
    if (callback_ != nullptr) napi_delete_reference(env(), std::exchange(callback_, nullptr));
    napi_create_reference(env(), callback, 1, &callback_);
  }
  events_ = events;
  if (events == 0) {
    pause();
    return 0;
  }
  // libuv starts again with the new events; a paused watch goes on.
  const int status = poll_->start(events);
  setRunning(status == 0);
  return status;
}

void Watch::pause() {
  if (poll_ == nullptr) return;
  poll_->stop();
  setRunning(false);
}

int Watch::resume() {
  if (poll_ == nullptr || callback_ == nullptr || events_ == 0) return 0;
  const int status = poll_->start(events_);
  setRunning(status == 0);
  return status;
}

void Watch::ref() {
  if (poll_ != nullptr) poll_->ref();
}

void Watch::unref() {
  if (poll_ != nullptr) poll_->unref();
}

void Watch::shut() {
  if (poll_ == nullptr) return;
  setRunning(false);
  std::exchange(poll_, nullptr)->close();
  if (callback_ != nullptr) napi_delete_reference(env(), std::exchange(callback_, nullptr));
  if (self_ != nullptr) napi_delete_reference(env(), std::exchange(self_, nullptr));
}

bool Watch::callOnce(napi_value self, int64_t number) {
  // No scope of its own: the function that calls this has one, and is bounded in time.
  napi_value callback = nullptr;
  napi_value value = nullptr;
  return napi_get_reference_value(env(), callback_, &callback) == napi_ok &&
         napi_create_int64(env(), number, &value) == napi_ok &&
         napi_call_function(env(), self, callback, 1, &value, nullptr) == napi_ok;
}

void Watch::enter(napi_ref function, size_t count, const double* numbers) {
  napi_env env = this->env();
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value self = nullptr;
  napi_value callback = nullptr;
  napi_value values[kMostNumbers] = {};
  napi_get_reference_value(env, self_, &self);
  napi_get_reference_value(env, function, &callback);
  for (size_t i = 0; i < count && i < kMostNumbers; ++i) napi_create_double(env, numbers[i], &values[i]);
  // `self` is the receiver and keeps this object alive in this scope, even when the callback closes it.
  napi_make_callback(env, nullptr, self, callback, count, values, nullptr);
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) {
    napi_value error = nullptr;
    napi_get_and_clear_last_exception(env, &error);
    // Becomes an uncaughtException, as for a callback of Node's own. Refused, rightly, while the thread is terminated.
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

}  // namespace uffd
