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
    {"MODE_MISSING", 1},
    {"MODE_WP", 2},
    {"MODE_MINOR", 4},
    {"COPY_DONTWAKE", 1},
    {"COPY_WP", 2},
    {"MADV_DONTNEED", MADV_DONTNEED},
    {"MADV_REMOVE", MADV_REMOVE},
    {"MADV_DONTFORK", MADV_DONTFORK},
    {"MADV_NOHUGEPAGE", MADV_NOHUGEPAGE},
    {"MADV_POPULATE_READ", 22},
    {"MADV_POPULATE_WRITE", 23},
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
