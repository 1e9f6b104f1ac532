// The range ioctls of a userfaultfd, one call each. Hot: no allocation, no exception for what the kernel says; the
// result is the kernel's own result field, so -EEXIST and partial progress reach the caller unchanged.
//
// What a registration may cover is checked here: of a userfaultfd that this process opened, only memory of a Region.
// All other ioctls act on registered ranges alone, so none of them can reach memory that somebody else relies on; MOVE,
// which takes pages away from its source, checks that too. The addresses of a userfaultfd that came from another
// process are of that process, and the kernel's to judge.

#include <sys/ioctl.h>

#include <cerrno>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Mapping.h"
#include "SharedTable.h"
#include "UffdAbi.h"
#include "UffdResult.h"

namespace uffd {

namespace {

constexpr const char* kForeign = "the range is not inside a Region of this process";

napi_value registerRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Register request{{call.integer(1, "address"), call.integer(2, "length")}, call.integer(3, "mode"), 0};
  if (call.failed()) return nullptr;
  if (uffd->fd() < 0) return call.failErrno(EBADF, "ioctl UFFDIO_REGISTER");
  const auto act = [&] { return ioctl(uffd->fd(), abi::kRegister, &request) < 0 ? -errno : 0; };
  int64_t status = -EFAULT;
  if (!uffd->isOwn()) {
    status = act();
  } else if (const auto mapping = SharedTable::process().covering(request.range.start, request.range.length)) {
    if (uffd->tellsOfUnmappings()) mapping->unmapElsewhere();
    status = mapping->registering(request.range.start, request.range.length, act);
    if (mapping->kind() == Mapping::Kind::buffer) SharedTable::process().registered(mapping);
  } else {
    return call.failErrno(EFAULT, "ioctl UFFDIO_REGISTER", kForeign);
  }
  if (status < 0) return call.failErrno(static_cast<int>(-status), "ioctl UFFDIO_REGISTER");
  return call.number(static_cast<double>(request.ioctls));
}

napi_value unregisterRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Range range{call.integer(1, "address"), call.integer(2, "length")};
  if (call.failed()) return nullptr;
  if (ioctl(uffd->fd(), abi::kUnregister, &range) < 0) return call.failErrno(errno, "ioctl UFFDIO_UNREGISTER");
  SharedTable::process().unregistered(range.start, range.length);
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

napi_value fillRange(napi_env env, napi_callback_info info, unsigned long number, bool modeIsOptional) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Fill request{{call.integer(1, "address"), call.integer(2, "length")}, 0, 0};
  if (!modeIsOptional || !call.absent(3)) request.mode = call.integer(3, "mode");
  if (call.failed()) return nullptr;
  const int status = ioctl(uffd->fd(), number, &request);
  return call.number(static_cast<double>(outcome(status, request.done)));
}

napi_value zeropageRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kZeropage, false); }
napi_value continueRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kContinue, false); }
napi_value poisonRange(napi_env env, napi_callback_info info) { return fillRange(env, info, abi::kPoison, true); }

napi_value moveRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::Move request{call.integer(1, "address"), call.integer(2, "sourceAddress"), call.integer(3, "length"),
                    call.integer(4, "mode"), 0};
  if (call.failed()) return nullptr;
  if (uffd->fd() < 0) return call.number(-EBADF);
  // The kernel moves within one process only, so the source is ours, whosever the userfaultfd is.
  const auto mapping = SharedTable::process().covering(request.from, request.length);
  if (mapping == nullptr) return call.number(-EFAULT);
  const int64_t done = mapping->whileAlive([&]() -> int64_t {
    const int status = ioctl(uffd->fd(), abi::kMove, &request);
    return outcome(status, request.done);
  });
  return call.number(static_cast<double>(done));
}

napi_value writeProtectRange(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  abi::WriteProtect request{{call.integer(1, "address"), call.integer(2, "length")}, call.integer(3, "mode")};
  if (call.failed()) return nullptr;
  return call.number(ioctl(uffd->fd(), abi::kWriteProtect, &request) == 0 ? 0 : -errno);
}

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
  exportFunction(addon, exports, "move", moveRange);
  exportFunction(addon, exports, "writeProtect", writeProtectRange);
}

}  // namespace uffd
