#include "Descriptor.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "Failure.h"
#include "SharedTable.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

// Whoever writes to "standard error" must not reach one of ours because the process was started without one.
constexpr int kFirstNumber = 3;

/** Files that only libuv and V8 have in this process: whoever closed one would end it. */
bool isOfTheRuntime(int fd) {
  char name[64] = "";
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  if (readlink(link.c_str(), name, sizeof name - 1) < 0) return false;
  for (const char* kind : {"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[io_uring]"}) {
    if (std::strcmp(name, kind) == 0) return true;
  }
  return false;
}

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
  return Descriptor::wrap(call.addon(), fd, {0, self->isOwn(), self->tellsOfUnmappings()});
}

napi_value descriptorShare(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Descriptor>();
  if (call.failed()) return nullptr;
  const uint64_t token = self->fd() < 0 ? 0 : self->token();
  if (token == 0) return call.failErrno(EBADF, "share");
  napi_value result = nullptr;
  napi_create_bigint_uint64(env, token, &result);
  return result;
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

napi_value adoptToken(Arguments& call) {
  const uint64_t token = call.bigint(0, "token");
  if (call.failed()) return nullptr;
  Origin origin;
  const int fd = SharedTable::process().adoptDescriptor(token, origin);
  if (fd < 0) return call.failErrno(-fd, "adopt", fd == -ESTALE ? "no holder of this descriptor is left" : "");
  return Descriptor::wrap(call.addon(), fd, origin);
}

napi_value descriptorAdopt(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, call[0], &type);
  if (type == napi_bigint) return adoptToken(call);
  const int fd = static_cast<int>(call.integer(0, "fd", 0, INT_MAX));
  if (call.failed()) return nullptr;
  // Two owners would close each other's successor.
  if (SharedTable::process().claimed(fd)) return call.failErrno(EBUSY, "adopt", "another Descriptor owns this number");
  if (isOfTheRuntime(fd)) return call.failErrno(EBUSY, "adopt", "the number belongs to the event loop");
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return call.failErrno(errno, "fcntl F_SETFD");
  call.addon().takeForked(fd);
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

bool isUserfaultfd(int fd) {
  // An empty range is EINVAL to every userfaultfd, whatever its state, and ENOTTY or the like to anything else.
  abi::Range nothing{};
  return ioctl(fd, abi::kWake, &nothing) == 0 || errno == EINVAL;
}

Descriptor::Descriptor(Addon& addon, int fd, const Origin& origin)
    : Handle(addon, Rank::descriptor),
      fd_(fd),
      origin_(origin),
      claim_(SharedTable::process().claim(fd, origin)) {}

uint64_t Descriptor::token() const { return SharedTable::process().descriptorToken(fd_, claim_); }

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
    kind_ = uffd::isUserfaultfd(fd_) ? Kind::userfaultfd : Kind::other;
  }
  return kind_ == Kind::userfaultfd;
}

napi_value Descriptor::wrap(Addon& addon, int fd, const Origin& origin) {
  return addon.instantiate(kClass, std::make_unique<Descriptor>(addon, fd, origin));
}

void Descriptor::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  constexpr auto fixed = static_cast<napi_property_attributes>(napi_static | napi_default_method);
  const napi_property_descriptor properties[] = {
      {"fd", nullptr, nullptr, descriptorFd, nullptr, nullptr, napi_enumerable, data},
      {"dup", nullptr, descriptorDup, nullptr, nullptr, nullptr, napi_default_method, data},
      {"share", nullptr, descriptorShare, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, descriptorClose, nullptr, nullptr, nullptr, napi_default_method, data},
      {"release", nullptr, descriptorRelease, nullptr, nullptr, nullptr, napi_default_method, data},
      {"adopt", nullptr, descriptorAdopt, nullptr, nullptr, nullptr, fixed, data},
      {"duplicate", nullptr, descriptorDuplicate, nullptr, nullptr, nullptr, fixed, data}};
  addon.define(exports, kClass, kName, constructDescriptor, std::size(properties), properties);
}

}  // namespace uffd
