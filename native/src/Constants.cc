// The numbers that callers need, by name. The running kernel's own are the same on every architecture of Linux.

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <climits>

#include "Arguments.h"
#include "Exports.h"
#include "Failure.h"
#include "LoopPoll.h"
#include "PagemapAbi.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

struct Constant {
  const char* name;
  uint64_t value;
};

constexpr Constant kConstants[] = {
    {"EVENT_PAGEFAULT", abi::kPagefault},
    {"EVENT_FORK", abi::kFork},
    {"EVENT_REMAP", abi::kRemap},
    {"EVENT_REMOVE", abi::kRemove},
    {"EVENT_UNMAP", abi::kUnmap},
    {"PAGEFAULT_FLAG_WRITE", 1},
    {"PAGEFAULT_FLAG_WP", 2},
    {"PAGEFAULT_FLAG_MINOR", 4},
    {"FEATURE_PAGEFAULT_FLAG_WP", abi::kFeaturePagefaultFlagWp},
    {"FEATURE_EVENT_FORK", abi::kFeatureEventFork},
    {"FEATURE_EVENT_REMAP", abi::kFeatureEventRemap},
    {"FEATURE_EVENT_REMOVE", abi::kFeatureEventRemove},
    {"FEATURE_MISSING_HUGETLBFS", abi::kFeatureMissingHugetlbfs},
    {"FEATURE_MISSING_SHMEM", abi::kFeatureMissingShmem},
    {"FEATURE_EVENT_UNMAP", abi::kFeatureEventUnmap},
    {"FEATURE_SIGBUS", abi::kFeatureSigbus},
    {"FEATURE_THREAD_ID", abi::kFeatureThreadId},
    {"FEATURE_MINOR_HUGETLBFS", abi::kFeatureMinorHugetlbfs},
    {"FEATURE_MINOR_SHMEM", abi::kFeatureMinorShmem},
    {"FEATURE_EXACT_ADDRESS", abi::kFeatureExactAddress},
    {"FEATURE_WP_HUGETLBFS_SHMEM", abi::kFeatureWpHugetlbfsShmem},
    {"FEATURE_WP_UNPOPULATED", abi::kFeatureWpUnpopulated},
    {"FEATURE_POISON", abi::kFeaturePoison},
    {"FEATURE_WP_ASYNC", abi::kFeatureWpAsync},
    {"FEATURE_MOVE", abi::kFeatureMove},
    {"MODE_MISSING", abi::kModeMissing},
    {"MODE_WP", abi::kModeWp},
    {"MODE_MINOR", abi::kModeMinor},
    {"IOCTL_WAKE", 1 << _IOC_NR(abi::kWake)},
    {"IOCTL_COPY", 1 << _IOC_NR(abi::kCopy)},
    {"IOCTL_ZEROPAGE", 1 << _IOC_NR(abi::kZeropage)},
    {"IOCTL_MOVE", 1 << _IOC_NR(abi::kMove)},
    {"IOCTL_WRITEPROTECT", 1 << _IOC_NR(abi::kWriteProtect)},
    {"IOCTL_CONTINUE", 1 << _IOC_NR(abi::kContinue)},
    {"IOCTL_POISON", 1 << _IOC_NR(abi::kPoison)},
    {"COPY_DONTWAKE", abi::kDontWake},
    {"COPY_WP", abi::kWithWp},
    {"ZEROPAGE_DONTWAKE", abi::kDontWake},
    {"CONTINUE_DONTWAKE", abi::kDontWake},
    {"CONTINUE_WP", abi::kWithWp},
    {"POISON_DONTWAKE", abi::kDontWake},
    {"WRITEPROTECT_WP", abi::kProtect},
    {"WRITEPROTECT_DONTWAKE", abi::kProtectDontWake},
    {"MOVE_DONTWAKE", abi::kMoveDontWake},
    {"MOVE_ALLOW_SRC_HOLES", abi::kMoveAllowSourceHoles},
    {"INSTALL_COPY", 0},
    {"INSTALL_ZERO", 1},
    {"INSTALL_CONTINUE", 2},
    {"INSTALL_POISON", 3},
    {"INSTALL_DONTWAKE", 0x10},
    {"INSTALL_WP", 0x20},
    {"PAGE_IS_WPALLOWED", abi::kPageWpAllowed},
    {"PAGE_IS_WRITTEN", abi::kPageWritten},
    {"PAGE_IS_FILE", abi::kPageFile},
    {"PAGE_IS_PRESENT", abi::kPagePresent},
    {"PAGE_IS_SWAPPED", abi::kPageSwapped},
    {"PAGE_IS_PFNZERO", abi::kPagePfnZero},
    {"PAGE_IS_HUGE", abi::kPageHuge},
    {"PAGE_IS_SOFT_DIRTY", abi::kPageSoftDirty},
    {"PAGE_IS_GUARD", abi::kPageGuard},
    {"MADV_NORMAL", MADV_NORMAL},
    {"MADV_RANDOM", MADV_RANDOM},
    {"MADV_SEQUENTIAL", MADV_SEQUENTIAL},
    {"MADV_WILLNEED", MADV_WILLNEED},
    {"MADV_DONTNEED", MADV_DONTNEED},
    {"MADV_FREE", MADV_FREE},
    {"MADV_REMOVE", MADV_REMOVE},
    {"MADV_DONTFORK", MADV_DONTFORK},
    {"MADV_DOFORK", MADV_DOFORK},
    {"MADV_MERGEABLE", MADV_MERGEABLE},
    {"MADV_UNMERGEABLE", MADV_UNMERGEABLE},
    {"MADV_HUGEPAGE", MADV_HUGEPAGE},
    {"MADV_NOHUGEPAGE", MADV_NOHUGEPAGE},
    {"MADV_DONTDUMP", MADV_DONTDUMP},
    {"MADV_DODUMP", MADV_DODUMP},
    {"MADV_WIPEONFORK", MADV_WIPEONFORK},
    {"MADV_KEEPONFORK", MADV_KEEPONFORK},
    {"MADV_COLD", 20},
    {"MADV_PAGEOUT", 21},
    {"MADV_POPULATE_READ", 22},
    {"MADV_POPULATE_WRITE", 23},
    {"MADV_DONTNEED_LOCKED", 24},
    {"MADV_COLLAPSE", 25},
    {"SEAL_SEAL", 1},
    {"SEAL_SHRINK", 2},
    {"SEAL_GROW", 4},
    {"SEAL_WRITE", 8},
    {"SEAL_FUTURE_WRITE", 16},
    {"SEAL_EXEC", 32},
    {"READABLE", LoopPoll::kReadable},
    {"WRITABLE", LoopPoll::kWritable},
    {"DISCONNECT", LoopPoll::kDisconnect},
    {"SOCK_STREAM", SOCK_STREAM},
    {"SOCK_DGRAM", SOCK_DGRAM},
    {"SOCK_SEQPACKET", SOCK_SEQPACKET},
    {"SHUT_RD", SHUT_RD},
    {"SHUT_WR", SHUT_WR},
    {"SHUT_RDWR", SHUT_RDWR}};

napi_value errnoNameOf(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const int error = static_cast<int>(call.integer(0, "errno", 0, INT_MAX));
  if (call.failed()) return nullptr;
  const char* name = errnoName(error);
  return call.string(name != nullptr ? name : "E" + std::to_string(error));
}

}  // namespace

void exportConstants(Addon& addon, napi_value exports) {
  napi_env env = addon.env();
  napi_value constants = nullptr;
  napi_value number = nullptr;
  napi_create_object(env, &constants);
  for (const Constant& constant : kConstants) {
    napi_create_double(env, static_cast<double>(constant.value), &number);
    put(env, constants, constant.name, number);
  }
  napi_object_freeze(env, constants);
  put(env, exports, "constants", constants);
  napi_create_double(env, static_cast<double>(sysconf(_SC_PAGESIZE)), &number);
  put(env, exports, "pageSize", number);
  exportFunction(addon, exports, "errnoName", errnoNameOf);
}

}  // namespace uffd
