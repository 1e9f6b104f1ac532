#include "FaultPoller.h"

#include <cerrno>
#include <iterator>
#include <utility>

#include "Descriptor.h"
#include "Failure.h"
#include "UffdEvents.h"

namespace uffd {

namespace {

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
  if (call.failed()) return nullptr;
  if (!self->isOpen()) return call.failErrno(EBADF, "start");
  const int status = self->begin(LoopPoll::kReadable, callback);
  return status < 0 ? call.failErrno(-status, "uv_poll_start") : call.undefined();
}

}  // namespace

int64_t FaultPoller::fillRing() {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env(), &scope) != napi_ok) return -ECANCELED;
  napi_value array = nullptr;
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  View<double> ring;
  // Asked every time: the caller may have transferred the buffer since, which leaves a length of 0.
  if (napi_get_reference_value(env(), ring_, &array) == napi_ok &&
      napi_get_typedarray_info(env(), array, &type, &ring.length, &data, nullptr, nullptr) == napi_ok) {
    ring.data = static_cast<double*>(data);
  }
  // SAFETY: no JavaScript runs between here and the last write.
  const int64_t count = ring.length < kEventWords ? -ENOBUFS : readEvents(*addon_, fd(), ring);
  napi_close_handle_scope(env(), scope);
  return count;
}

void FaultPoller::ready(int status, int) {
  const int64_t count = status < 0 ? status : fillRing();
  if (count == 0) return;  // Another reader of the same userfaultfd was quicker.
  // An error would come again at once, for ever: the owner decides whether to go on.
  if (count < 0) pause();
  const double number = static_cast<double>(count);
  call(1, &number);
}

void FaultPoller::shut() {
  Watch::shut();
  if (ring_ != nullptr && addon_ != nullptr) napi_delete_reference(env(), ring_);
  ring_ = nullptr;
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
