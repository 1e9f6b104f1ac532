#include "Poller.h"

#include <cerrno>
#include <iterator>

#include "Descriptor.h"
#include "Failure.h"

namespace uffd {

namespace {

napi_value constructPoller(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  napi_value target = nullptr;
  napi_get_new_target(env, info, &target);
  if (target == nullptr) return call.failType("Poller is a class: use new");
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  if (call.failed()) return nullptr;
  auto poller = std::make_unique<Poller>(call.addon());
  const int error = poller->open(descriptor->fd());
  if (error != 0) return call.failErrno(error, "uv_poll_init");
  Poller* watch = poller.get();
  if (!call.addon().bind(ClassId::poller, call.self(), std::move(poller))) return call.fail();
  watch->attach(call.self());
  return call.self();
}

napi_value pollerWatch(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Poller>();
  constexpr int all = LoopPoll::kReadable | LoopPoll::kWritable | LoopPoll::kDisconnect;
  const int events = static_cast<int>(call.integer(0, "events", 0, all));
  napi_value callback = call.function(1, "onReady");
  if (call.failed()) return nullptr;
  if (!self->isOpen()) return call.failErrno(EBADF, "watch");
  const int status = self->begin(events, callback);
  return status < 0 ? call.failErrno(-status, "uv_poll_start") : call.undefined();
}

}  // namespace

void Poller::ready(int status, int events) {
  // libuv stops a poll on POLLERR and calls it EBADF. To the caller that is readiness for everything: whatever is tried
  // next returns the real errno (ECONNREFUSED, EPIPE), as after poll(2).
  const bool failedDescriptor = status == -EBADF;
  if (status < 0 && !failedDescriptor) pause();
  const double failed[] = {0, static_cast<double>(this->events())};
  const double plain[] = {static_cast<double>(status), static_cast<double>(events)};
  call(2, failedDescriptor ? failed : plain);
  if (failedDescriptor && isOpen() && running()) resume();
}

void Poller::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  using Methods = WatchMethods<Poller>;
  const napi_property_descriptor properties[] = {
      {"watch", nullptr, pollerWatch, nullptr, nullptr, nullptr, napi_default_method, data},
      {"pause", nullptr, Methods::pause, nullptr, nullptr, nullptr, napi_default_method, data},
      {"resume", nullptr, Methods::resume, nullptr, nullptr, nullptr, napi_default_method, data},
      {"ref", nullptr, Methods::ref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"unref", nullptr, Methods::unref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, Methods::close, nullptr, nullptr, nullptr, napi_default_method, data}};
  addon.define(exports, kClass, kName, constructPoller, std::size(properties), properties);
}

}  // namespace uffd
