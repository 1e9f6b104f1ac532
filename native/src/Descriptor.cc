#include "Descriptor.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <utility>

#include "Failure.h"
#include "SharedTable.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

// Whoever writes to "standard error" must not reach one of ours because the process was started without one.
constexpr int kFirstNumber = 3;

napi_value constructDescriptor(napi_env env, napi_callback_info info) {
  return constructPrivately(env, info, ClassId::descriptor);
}

napi_value descriptorFd(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Descriptor>();
  return call.failed() ? nullptr : call.number(self->fd());
}

napi_value descriptorDup(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Descriptor>();
  if (call.failed()) return nullptr;
  const int fd = duplicate(self->fd());
  if (fd < 0) return call.failErrno(errno, "fcntl F_DUPFD_CLOEXEC");
  return Descriptor::wrap(call.addon(), fd);
}

napi_value descriptorClose(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Descriptor>();
  if (call.failed()) return nullptr;
  self->shut();
  return call.undefined();
}

napi_value descriptorRelease(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Descriptor>();
  if (call.failed()) return nullptr;
  if (self->fd() < 0) return call.failErrno(EBADF, "release");
  return call.number(self->release());
}

napi_value descriptorAdopt(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const int fd = static_cast<int>(call.integer(0, "fd", 0, INT_MAX));
  if (call.failed()) return nullptr;
  // Two owners would close each other's successor.
  if (SharedTable::process().claimed(fd)) return call.failErrno(EBUSY, "adopt", "another Descriptor owns this number");
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return call.failErrno(errno, "fcntl F_SETFD");
  return Descriptor::wrap(call.addon(), fd);
}

napi_value descriptorDuplicate(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const int number = static_cast<int>(call.integer(0, "fd", 0, INT_MAX));
  if (call.failed()) return nullptr;
  const int fd = duplicate(number);
  if (fd < 0) return call.failErrno(errno, "fcntl F_DUPFD_CLOEXEC");
  return Descriptor::wrap(call.addon(), fd);
}

}  // namespace

int duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, kFirstNumber); }

Descriptor::Descriptor(Addon& addon, int fd)
    : Handle(addon, Rank::descriptor), fd_(fd), claim_(SharedTable::process().claim(fd)) {}

void Descriptor::shut() {
  const int fd = std::exchange(fd_, -1);
  if (fd < 0) return;
  // Not retried after EINTR: Linux has freed the number by then, and another thread may have it.
  if (SharedTable::process().disclaim(fd, claim_)) ::close(fd);
}

int Descriptor::release() {
  const int fd = std::exchange(fd_, -1);
  SharedTable::process().disclaim(fd, claim_);
  return fd;
}

bool Descriptor::isUserfaultfd() {
  if (kind_ == Kind::unknown && fd_ >= 0) {
    // An empty range is EINVAL to every userfaultfd, whatever its state, and ENOTTY or the like to anything else.
    abi::Range nothing{};
    const bool known = ioctl(fd_, abi::kWake, &nothing) == 0 || errno == EINVAL;
    kind_ = known ? Kind::userfaultfd : Kind::other;
  }
  return kind_ == Kind::userfaultfd;
}

napi_value Descriptor::wrap(Addon& addon, int fd) {
  return addon.instantiate(kClass, std::make_unique<Descriptor>(addon, fd));
}

void Descriptor::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  constexpr auto fixed = static_cast<napi_property_attributes>(napi_static | napi_default_method);
  const napi_property_descriptor properties[] = {
      {"fd", nullptr, nullptr, descriptorFd, nullptr, nullptr, napi_enumerable, data},
      {"dup", nullptr, descriptorDup, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, descriptorClose, nullptr, nullptr, nullptr, napi_default_method, data},
      {"release", nullptr, descriptorRelease, nullptr, nullptr, nullptr, napi_default_method, data},
      {"adopt", nullptr, descriptorAdopt, nullptr, nullptr, nullptr, fixed, data},
      {"duplicate", nullptr, descriptorDuplicate, nullptr, nullptr, nullptr, fixed, data}};
  addon.define(exports, kClass, kName, constructDescriptor, std::size(properties), properties);
}

}  // namespace uffd
