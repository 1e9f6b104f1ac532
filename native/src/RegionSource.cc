#include "RegionSource.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <memory>

#include "Descriptor.h"
#include "Failure.h"
#include "Region.h"

namespace uffd::source {

namespace {

/** Longest name the kernel takes: NAME_MAX less the "memfd:" it puts before. */
constexpr size_t kMostName = 249;

uint64_t pageSize() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

/** A positive number of whole pages. */
size_t pages(Arguments& call, size_t index, uint64_t page) {
  const uint64_t length = call.integer(index, "length", 1);
  if (!call.failed() && length % page != 0) {
    call.failRange("length is not a multiple of the page size " + std::to_string(page) + ": " + std::to_string(length));
  }
  return length;
}

napi_value hold(Arguments& call, Mapping::Kind kind, void* address, size_t length, int fd, size_t page) {
  auto mapping = std::make_shared<Mapping>(kind, address, length, fd, page);
  return Region::wrap(call.addon(), SharedTable::process().enter(std::move(mapping)));
}

/** A shared mapping of `fd`, which it takes over, also when it fails. */
napi_value mapFile(Arguments& call, int fd, uint64_t offset, size_t length, size_t page) {
  void* address = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return call.failErrno(error, "mmap");
  }
  return hold(call, Mapping::Kind::file, address, length, fd, page);
}

/** A huge page size as memfd_create(2) and mmap(2) want it: its logarithm in the top six bits. */
unsigned int hugeSize(uint64_t huge) {
  constexpr int shift = 26;
  return static_cast<unsigned int>(std::countr_zero(huge)) << shift;
}

constexpr unsigned int kMemfdHugetlb = 4;

struct Wanted {
  /** Bytes of a huge page, 0 for the host's own. */
  uint64_t huge = 0;
  /** Seals beyond those of the size. */
  uint64_t seal = 0;
};

Wanted readOptions(Arguments& call, size_t index) {
  Wanted wanted;
  if (!call.object(index, "options")) return wanted;
  wanted.huge = call.integerOption(index, "hugetlb", 1, kMaxSafe).value_or(0);
  wanted.seal = call.integerOption(index, "seal", 0, 0xffff).value_or(0);
  if (!call.failed() && wanted.huge != 0 && !std::has_single_bit(wanted.huge)) {
    call.failRange("hugetlb is not a power of two: " + std::to_string(wanted.huge));
  }
  return wanted;
}

/** Bytes of a page of an open file. */
size_t pageSizeOf(int fd) {
  constexpr long hugetlbfs = 0x958458f6;
  struct statfs status {};
  return fstatfs(fd, &status) == 0 && status.f_type == hugetlbfs ? static_cast<size_t>(status.f_bsize) : pageSize();
}

}  // namespace

napi_value anonymous(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const uint64_t huge = readOptions(call, 1).huge;
  const size_t page = huge != 0 ? huge : pageSize();
  const size_t length = pages(call, 0, page);
  if (call.failed()) return nullptr;
  const unsigned int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge != 0 ? MAP_HUGETLB | hugeSize(huge) : 0);
  void* address = mmap(nullptr, length, PROT_READ | PROT_WRITE, static_cast<int>(flags), -1, 0);
  if (address == MAP_FAILED) return call.failErrno(errno, "mmap");
  return hold(call, Mapping::Kind::anonymous, address, length, -1, page);
}

napi_value memfd(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const std::string name = call.text(0, "name", kMostName);
  const auto [huge, seal] = readOptions(call, 2);
  const size_t page = huge != 0 ? huge : pageSize();
  const size_t length = pages(call, 1, page);
  if (call.failed()) return nullptr;
  const int fd = memfd_create(
      name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge != 0 ? kMemfdHugetlb | hugeSize(huge) : 0));
  if (fd < 0) return call.failErrno(errno, "memfd_create");
  // Sealed in size: whoever gets the descriptor cannot shrink it, which would turn every access here into SIGBUS.
  const char* failing = nullptr;
  if (ftruncate(fd, static_cast<off_t>(length)) < 0) {
    failing = "ftruncate";
  } else if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
    failing = "fcntl F_ADD_SEALS";
  }
  if (failing != nullptr) {
    const int error = errno;
    close(fd);
    return call.failErrno(error, failing);
  }
  napi_value region = mapFile(call, fd, 0, length, page);
  // After the mapping: a file sealed against writing refuses one that may write.
  if (region == nullptr || seal == 0 || fcntl(fd, F_ADD_SEALS, static_cast<int>(seal)) == 0) return region;
  const int error = errno;
  // SAFETY: `region` was made by this call, so it owns a Region.
  call.addon().unwrap(ClassId::region, region)->shut();
  return call.failErrno(error, "fcntl F_ADD_SEALS");
}

napi_value map(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  const uint64_t offset = call.integer(1, "offset");
  const size_t page = call.failed() ? pageSize() : pageSizeOf(descriptor->fd());
  const size_t length = pages(call, 2, page);
  if (call.failed()) return nullptr;
  if (offset % page != 0) return call.failRange("offset is not a multiple of the page size");
  struct stat status {};
  if (fstat(descriptor->fd(), &status) < 0) return call.failErrno(errno, "fstat");
  // Of a device nobody knows what a mapping does; a file that ends earlier kills the process at the first touch.
  if (!S_ISREG(status.st_mode)) return call.failErrno(ENODEV, "mmap", "not a regular file or memfd");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (offset > size || length > size - offset) {
    return call.failRange("the file holds " + std::to_string(size) + " bytes, not " + std::to_string(length) + " at " +
                          std::to_string(offset));
  }
  const int fd = duplicate(descriptor->fd());
  if (fd < 0) return call.failErrno(errno, "fcntl F_DUPFD_CLOEXEC");
  return mapFile(call, fd, offset, length, page);
}

napi_value ofBuffer(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  bool is = false;
  if (napi_is_arraybuffer(env, call[0], &is) != napi_ok || !is) return call.failType("buffer is not an ArrayBuffer");
  // A resizable buffer gives pages back while it lives.
  napi_value resizable = nullptr;
  if (napi_get_named_property(env, call[0], "resizable", &resizable) != napi_ok) return call.fail();
  bool resizes = false;
  if (napi_get_value_bool(env, resizable, &resizes) == napi_ok && resizes) {
    return call.failType("buffer is resizable: its memory does not stay");
  }
  void* data = nullptr;
  size_t length = 0;
  if (napi_get_arraybuffer_info(env, call[0], &data, &length) != napi_ok) return call.fail();
  if (data == nullptr || length == 0) return call.failRange("buffer is empty or detached");
  // SAFETY: the pin keeps the memory until the last holder or this environment ends, see Mapping.
  auto mapping = std::make_shared<Mapping>(Mapping::Kind::buffer, data, length, -1, pageSize());
  Hold held = SharedTable::process().enter(mapping);
  call.addon().sweepPins();
  if (!call.addon().pin(call[0], std::move(mapping))) return call.failType("buffer cannot be referenced");
  return Region::wrap(call.addon(), std::move(held));
}

napi_value adopt(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const uint64_t token = call.bigint(0, "token");
  if (call.failed()) return nullptr;
  Hold held = SharedTable::process().adopt(token);
  if (!held || held->stale()) return call.failErrno(ESTALE, "adopt", "no holder of this region is left");
  return Region::wrap(call.addon(), std::move(held));
}

}  // namespace uffd::source
