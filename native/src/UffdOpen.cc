// Opening a userfaultfd: the device first, then the system call, and the negotiation of features. The kernel takes
// UFFDIO_API once per descriptor, so what it offers is asked on a first one and what is wanted set on a second.

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Failure.h"
#include "SelfTest.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

constexpr int kUffdFlags = O_CLOEXEC | O_NONBLOCK;

/** A descriptor or -errno. */
int openDevice(bool userModeOnly) {
  const int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device < 0) return -errno;
  const int fd = ioctl(device, abi::kNew, kUffdFlags | (userModeOnly ? abi::kUserModeOnly : 0));
  const int error = errno;
  ::close(device);
  return fd < 0 ? -error : fd;
}

int openSyscall(bool userModeOnly) {
  const long fd = syscall(SYS_userfaultfd, kUffdFlags | (userModeOnly ? abi::kUserModeOnly : 0));
  return fd < 0 ? -errno : static_cast<int>(fd);
}

struct Way {
  bool device;
  bool syscall;
};

struct Raw {
  int fd;
  bool device;
  int deviceError;
};

Raw openRaw(Way way, bool userModeOnly) {
  Raw raw{-ENOSYS, false, 0};
  if (way.device) {
    raw.fd = openDevice(userModeOnly);
    raw.device = raw.fd >= 0;
    raw.deviceError = raw.fd < 0 ? -raw.fd : 0;
    if (raw.fd >= 0 || !way.syscall) return raw;
  }
  raw.fd = openSyscall(userModeOnly);
  return raw;
}

/** 0 or -errno; `offer` is what the kernel has. */
int handshake(int fd, uint64_t features, abi::Api& offer) {
  offer = {abi::kApiVersion, features, 0};
  return ioctl(fd, abi::kApi, &offer) == 0 ? 0 : -errno;
}

std::string remedy(const Raw& raw, bool userModeOnly) {
  const int error = -raw.fd;
  if (error == ENOSYS) return "this kernel has no userfaultfd";
  if (error != EPERM && error != EACCES) return {};
  std::string text;
  if (raw.deviceError != 0) {
    const char* name = errnoName(raw.deviceError);
    text = "/dev/userfaultfd: " + std::string(name != nullptr ? name : "refused") + "; ";
  }
  if (userModeOnly) return text + "a sandbox such as seccomp refuses the call";
  return text +
         "needs CAP_SYS_PTRACE, or `sysctl vm.unprivileged_userfaultfd=1`, or access to /dev/userfaultfd; faults of "
         "user mode alone need only userModeOnly";
}

std::string listed(uint64_t bits) {
  char text[20];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(bits));
  return text;
}

struct Wanted {
  uint64_t required;
  uint64_t optional;
  bool userModeOnly;
  Way way;
};

Wanted readOptions(Arguments& call) {
  Wanted wanted{0, 0, false, {true, true}};
  if (!call.object(0, "options")) return wanted;
  wanted.required = call.integerOption(0, "required", 0, kMaxSafe).value_or(0);
  wanted.optional = call.integerOption(0, "optional", 0, kMaxSafe).value_or(0);
  wanted.userModeOnly = call.booleanOption(0, "userModeOnly").value_or(false);
  const std::string via = call.textOption(0, "via").value_or("auto");
  if (via != "auto" && via != "device" && via != "syscall") {
    call.failRange("via is not auto, device or syscall: " + via);
  }
  wanted.way = {via != "syscall", via != "device"};
  return wanted;
}

/** Without the bit of UFFDIO_API itself, 63: the rest is exact as a number. */
double ioctlBits(const abi::Api& offer) { return static_cast<double>(offer.ioctls & kMaxSafe); }

/** What differs between this package and the running kernel, found out at the first open of the process. */
const std::string& difference() {
  static const auto* found = new std::string([] {
    for (const Check& check : selfTest(false)) {
      if (!check.wrong.empty()) return std::string(check.name) + ": " + check.wrong;
    }
    return std::string();
  }());
  return *found;
}

napi_value openUffd(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const Wanted wanted = readOptions(call);
  if (call.failed()) return nullptr;

  const Raw asked = openRaw(wanted.way, wanted.userModeOnly);
  if (asked.fd < 0) return call.failErrno(-asked.fd, "userfaultfd", remedy(asked, wanted.userModeOnly));
  if (!difference().empty()) {
    ::close(asked.fd);
    return call.failErrno(ENOTSUP, "self-test", "this kernel differs from what the package knows: " + difference());
  }
  abi::Api offer{};
  const int offered = handshake(asked.fd, 0, offer);
  ::close(asked.fd);
  if (offered < 0) return call.failErrno(-offered, "ioctl UFFDIO_API");
  const uint64_t lacking = wanted.required & ~offer.features;
  if (lacking != 0) {
    return call.failErrno(ENOTSUP, "ioctl UFFDIO_API",
                          "required features " + listed(lacking) + " are not among " + listed(offer.features));
  }

  const Raw raw = openRaw(wanted.way, wanted.userModeOnly);
  if (raw.fd < 0) return call.failErrno(-raw.fd, "userfaultfd", remedy(raw, wanted.userModeOnly));
  uint64_t features = wanted.required | (wanted.optional & offer.features);
  abi::Api granted{};
  int error = handshake(raw.fd, features, granted);
  if (error == -EPERM && (features & ~wanted.required & abi::kFeatureEventFork) != 0) {
    // Fork events alone need CAP_SYS_PTRACE; the caller can do without. A refused handshake may be repeated.
    features &= ~static_cast<uint64_t>(abi::kFeatureEventFork);
    error = handshake(raw.fd, features, granted);
  }
  if (error < 0) {
    ::close(raw.fd);
    return call.failErrno(-error, "ioctl UFFDIO_API", "features " + listed(features));
  }
  // The kernel turns the one on with the other and does not say so.
  if ((features & abi::kFeatureWpAsync) != 0) features |= abi::kFeatureWpUnpopulated & granted.features;

  napi_value descriptor =
      Descriptor::wrap(call.addon(), raw.fd, {0, true, (features & abi::kFeatureEventUnmap) != 0});
  if (descriptor == nullptr) return nullptr;
  napi_value result = nullptr;
  napi_create_object(env, &result);
  put(env, result, "descriptor", descriptor);
  put(env, result, "features", call.number(static_cast<double>(features)));
  put(env, result, "offered", call.number(static_cast<double>(granted.features)));
  put(env, result, "ioctls", call.number(ioctlBits(granted)));
  put(env, result, "via", call.string(raw.device ? "device" : "syscall"));
  put(env, result, "userModeOnly", call.boolean(wanted.userModeOnly));
  return result;
}

napi_value probeUffd(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  napi_value result = nullptr;
  napi_create_object(env, &result);
  abi::Api offer{};
  bool known = false;
  const auto attempt = [&](const char* key, int fd) {
    int error = fd < 0 ? -fd : 0;
    if (fd >= 0) {
      abi::Api found{};
      error = -handshake(fd, 0, found);
      ::close(fd);
      if (error == 0 && !known) {
        offer = found;
        known = true;
      }
    }
    napi_value entry = nullptr;
    napi_create_object(env, &entry);
    put(env, entry, "available", call.boolean(error == 0));
    put(env, entry, "errno", call.number(error));
    put(env, result, key, entry);
  };
  attempt("device", openDevice(false));
  attempt("syscall", openSyscall(false));
  attempt("userModeOnly", openSyscall(true));
  put(env, result, "features", call.number(static_cast<double>(offer.features)));
  put(env, result, "ioctls", call.number(ioctlBits(offer)));
  return result;
}

}  // namespace

void exportUffdOpen(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "open", openUffd);
  exportFunction(addon, exports, "probe", probeUffd);
}

}  // namespace uffd
