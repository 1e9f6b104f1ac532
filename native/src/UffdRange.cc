// The range ioctls of a userfaultfd, one call each. Hot: no allocation, no exception for what the kernel says; the
// result is the kernel's own result field, so -EEXIST and partial progress reach the caller unchanged.

#include <sys/ioctl.h>

#include <cerrno>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

/** A failed ioctl may still have done something: then the field says how much, and the errno (EAGAIN) only why. */
int64_t outcome(int status, int64_t field) {
  if (status == 0 || field != 0) return field;
  return -errno;
}

napi_value registerRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Register request{{call.integer(1, "address"), call.integer(2, "length")}, call.integer(3, "mode"), 0};
  if (call.failed()) return nullptr;
  if (ioctl(uffd->fd(), abi::kRegister, &request) < 0) return call.failErrno(errno, "ioctl UFFDIO_REGISTER");
  return call.number(static_cast<double>(request.ioctls));
}

napi_value unregisterRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Range range{call.integer(1, "address"), call.integer(2, "length")};
  if (call.failed()) return nullptr;
  if (ioctl(uffd->fd(), abi::kUnregister, &range) < 0) return call.failErrno(errno, "ioctl UFFDIO_UNREGISTER");
  return call.undefined();
}

napi_value copyRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  const uint64_t address = call.integer(1, "address");
  const View<uint8_t> source = call.bytes(2, "source");
  const uint64_t offset = call.integer(3, "sourceOffset");
  const uint64_t length = call.integer(4, "length");
  const uint64_t mode = call.integer(5, "mode");
  const uint8_t* from = call.part(source, offset, length, "source");
  if (call.failed()) return nullptr;
  // SAFETY: `length` bytes at `from` are in the view, and no JavaScript runs before the ioctl returns. The destination
  // is the kernel's to check: it fills only missing pages of ranges registered with this descriptor.
  abi::Copy request{address, reinterpret_cast<uintptr_t>(from), length, mode, 0};
  const int status = ioctl(uffd->fd(), abi::kCopy, &request);
  return call.number(static_cast<double>(outcome(status, request.done)));
}

napi_value fillRange(napi_env env, napi_callback_info info, unsigned long number, bool hasMode) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Fill request{{call.integer(1, "address"), call.integer(2, "length")}, hasMode ? call.integer(3, "mode") : 0, 0};
  if (call.failed()) return nullptr;
  const int status = ioctl(uffd->fd(), number, &request);
  return call.number(static_cast<double>(outcome(status, request.done)));
}

napi_value zeropageRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kZeropage, true); }
napi_value continueRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kContinue, true); }
napi_value poisonRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kPoison, false); }

napi_value wakeRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Range range{call.integer(1, "address"), call.integer(2, "length")};
  if (call.failed()) return nullptr;
  return call.number(ioctl(uffd->fd(), abi::kWake, &range) == 0 ? 0 : -errno);
}

}  // namespace

void exportUffdRange(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "register", registerRange);
  exportFunction(addon, exports, "unregister", unregisterRange);
  exportFunction(addon, exports, "copy", copyRange);
  exportFunction(addon, exports, "zeropage", zeropageRange);
  exportFunction(addon, exports, "continueRange", continueRange);
  exportFunction(addon, exports, "wake", wakeRange);
  exportFunction(addon, exports, "poison", poisonRange);
}

}  // namespace uffd
