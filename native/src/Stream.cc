// Plain read and write of a descriptor. Hot: one system call, the result signed.

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"

namespace uffd {

namespace {

ssize_t sendOrWrite(Descriptor& to, const uint8_t* from, size_t length) {
  if (to.sends != Descriptor::Sends::no) {
    const ssize_t sent = ::send(to.fd(), from, length, MSG_NOSIGNAL);
    if (sent >= 0) to.sends = Descriptor::Sends::yes;
    if (sent >= 0 || errno != ENOTSOCK) return sent;
    to.sends = Descriptor::Sends::no;
  }
  return ::write(to.fd(), from, length);
}

napi_value readInto(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  const View<uint8_t> into = call.bytes(1, "into");
  const uint64_t offset = call.integer(2, "offset");
  const uint64_t length = call.integer(3, "length");
  uint8_t* to = call.part(into, offset, length, "into");
  if (call.failed()) return nullptr;
  ssize_t bytes = 0;
  // SAFETY: `length` bytes at `to` are in the view, and no JavaScript runs before the call returns.
  do bytes = ::read(descriptor->fd(), to, length);
  while (bytes < 0 && errno == EINTR);
  return call.number(static_cast<double>(bytes < 0 ? -errno : bytes));
}

napi_value writeFrom(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  const View<uint8_t> from = call.bytes(1, "from");
  const uint64_t offset = call.integer(2, "offset");
  const uint64_t length = call.integer(3, "length");
  const uint8_t* source = call.part(from, offset, length, "from");
  if (call.failed()) return nullptr;
  ssize_t bytes = 0;
  // SAFETY: as in read.
  do bytes = sendOrWrite(*descriptor, source, length);
  while (bytes < 0 && errno == EINTR);
  return call.number(static_cast<double>(bytes < 0 ? -errno : bytes));
}

}  // namespace

void exportStream(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "read", readInto);
  exportFunction(addon, exports, "write", writeFrom);
}

}  // namespace uffd
