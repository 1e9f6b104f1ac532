#include "FaultPoller.h"

#include <poll.h>
#include <time.h>

#include <cerrno>
#include <iterator>
#include <utility>

#include "Descriptor.h"
#include "Failure.h"
#include "SpinWait.h"
#include "UffdEvents.h"

namespace uffd {

namespace {

/** The longest wait that can be asked for, and in a whole turn: the event loop stands still meanwhile. Nanoseconds. */
constexpr int64_t kLongestLinger = 1'000'000;

napi_value constructFaultPoller(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  napi_value target = nullptr;
  napi_get_new_target(env, info, &target);
  if (target == nullptr) return call.failType("FaultPoller is a class: use new");
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  const View<double> ring = call.doubles(1, "ring");
  if (call.failed()) return nullptr;
  if (ring.length < kEventWords) return call.failRange("ring holds less than one event of 4 numbers");
  if (uffd->fd() < 0) return call.failErrno(EBADF, "FaultPoller");
  if (!uffd->isUserfaultfd()) return call.failErrno(ENOTTY, "FaultPoller", "not a userfaultfd");
  napi_ref reference = nullptr;
  if (napi_create_reference(env, call[1], 1, &reference) != napi_ok) return call.fail();
  auto poller = std::make_unique<FaultPoller>(call.addon(), reference);
  const int error = poller->open(uffd->fd());
  if (error != 0) return call.failErrno(error, "uv_poll_init");
  FaultPoller* watch = poller.get();
  if (!call.addon().bind(ClassId::faultPoller, call.self(), std::move(poller))) return call.fail();
  watch->attach(call.self());
  return call.self();
}

napi_value faultPollerStart(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  napi_value callback = call.function(0, "onBurst");
  const uint64_t linger = call.absent(1) ? 0 : call.integer(1, "lingerNanos", 0, kLongestLinger);
  if (call.failed()) return nullptr;
  if (!self->isOpen()) return call.failErrno(EBADF, "start");
  if (!self->linger(static_cast<int64_t>(linger))) return call.fail();
  const int status = self->begin(LoopPoll::kReadable, callback);
  return status < 0 ? call.failErrno(-status, "uv_poll_start") : call.undefined();
}

}  // namespace

bool FaultPoller::linger(int64_t nanos) {
  lingerNanos_ = nanos;
  if (nanos == 0 || lingering_ != nullptr) return true;
  napi_value function = nullptr;
  return napi_create_function(env(), "lingering", NAPI_AUTO_LENGTH, lingerFor, addon_, &function) == napi_ok &&
         napi_create_reference(env(), function, 1, &lingering_) == napi_ok;
}

int64_t FaultPoller::fillRing() {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env(), &scope) != napi_ok) return -ECANCELED;
  napi_value array = nullptr;
  napi_get_reference_value(env(), ring_, &array);
  const int64_t count = fill(array);
  napi_close_handle_scope(env(), scope);
  return count;
}

int64_t FaultPoller::fill(napi_value array) {
  View<double> ring;
  void* data = nullptr;
  // Asked every time: the caller may have transferred the buffer since, which leaves a length of 0. What kind of array
  // it is was seen when it was given, and is not asked again: that is the dear part.
  if (napi_get_typedarray_info(env(), array, nullptr, &ring.length, &data, nullptr, nullptr) == napi_ok) {
    ring.data = static_cast<double*>(data);
  }
  // SAFETY: no JavaScript runs between here and the last write.
  return ring.length < kEventWords ? -ENOBUFS : readEvents(*addon_, fd(), ring);
}

int64_t FaultPoller::nextBurst(napi_value array) {
  pollfd polled{fd(), POLLIN, 0};
  const timespec patience{0, lingerNanos_};
  // Sleeps, as the loop does: whoever was just answered runs now, and who else wants the CPU.
  return ppoll(&polled, 1, &patience, nullptr) > 0 ? fill(array) : 0;
}

void FaultPoller::ready(int status, int) {
  const int64_t count = status < 0 ? status : fillRing();
  if (count == 0) return;  // Another reader of the same userfaultfd was quicker.
  // An error would come again at once, for ever: the owner decides whether to go on.
  if (count < 0) pause();
  if (count < 0 || lingerNanos_ == 0) {
    const double number = static_cast<double>(count);
    call(1, &number);
  } else {
    pending_ = count;
    callInside(lingering_);
  }
}

napi_value FaultPoller::lingerFor(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  if (!call.failed()) self->burstsOfATurn(call.self());
  return nullptr;
}

void FaultPoller::burstsOfATurn(napi_value self) {
  int64_t count = std::exchange(pending_, 0);
  const int64_t end = monotonicNow() + kLongestLinger;
  napi_value array = nullptr;
  if (napi_get_reference_value(env(), ring_, &array) != napi_ok) return;
  while (count != 0) {
    if (count < 0) pause();
    // Closed, paused, started anew, or thrown: what follows is the loop's. `this` lives on, its object is the receiver.
    if (!callOnce(self, count) || !isOpen() || !running() || lingerNanos_ == 0 || monotonicNow() >= end) return;
    count = nextBurst(array);
  }
}

void FaultPoller::shut() {
  Watch::shut();
  if (addon_ != nullptr) {
    if (ring_ != nullptr) napi_delete_reference(env(), ring_);
    if (lingering_ != nullptr) napi_delete_reference(env(), lingering_);
  }
  ring_ = lingering_ = nullptr;
}

void FaultPoller::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  using Methods = WatchMethods<FaultPoller>;
  const napi_property_descriptor properties[] = {
      {"start", nullptr, faultPollerStart, nullptr, nullptr, nullptr, napi_default_method, data},
      {"pause", nullptr, Methods::pause, nullptr, nullptr, nullptr, napi_default_method, data},
      {"resume", nullptr, Methods::resume, nullptr, nullptr, nullptr, napi_default_method, data},
      {"ref", nullptr, Methods::ref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"unref", nullptr, Methods::unref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, Methods::close, nullptr, nullptr, nullptr, napi_default_method, data}};
  addon.define(exports, kClass, kName, constructFaultPoller, std::size(properties), properties);
}

}  // namespace uffd
