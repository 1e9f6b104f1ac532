// Seals of a memfd: what nobody who has the descriptor can do to it any more (F_ADD_SEALS of fcntl(2)).

#include <fcntl.h>

#include <cerrno>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"

namespace uffd {

namespace {

napi_value addSeals(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  const int seals = static_cast<int>(call.integer(1, "seals", 0, 0xffff));
  if (call.failed()) return nullptr;
  if (fcntl(descriptor->fd(), F_ADD_SEALS, seals) < 0) return call.failErrno(errno, "fcntl F_ADD_SEALS");
  return call.undefined();
}

napi_value sealsOf(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  if (call.failed()) return nullptr;
  const int seals = fcntl(descriptor->fd(), F_GET_SEALS);
  return seals < 0 ? call.failErrno(errno, "fcntl F_GET_SEALS") : call.number(seals);
}

}  // namespace

void exportSeals(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "addSeals", addSeals);
  exportFunction(addon, exports, "seals", sealsOf);
}

}  // namespace uffd
