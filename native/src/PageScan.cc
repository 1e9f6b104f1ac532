// PAGEMAP_SCAN: which pages of a range are written, present, swapped ..., as runs; and, in the same walk, the renewed
// write protection of what it found, so that no write falls between looking and protecting.

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "PagemapAbi.h"

namespace uffd {

namespace {

/** Numbers a run takes: start, end, categories. The same size as the kernel's run, which is converted in place. */
constexpr size_t kRunWords = 3;
static_assert(sizeof(abi::PageRun) == kRunWords * sizeof(double));

/** The ioctl's number could mean something else to another file. */
bool isProc(int fd) {
  constexpr long procfs = 0x9fa0;
  struct statfs status {};
  return fstatfs(fd, &status) == 0 && status.f_type == procfs;
}

abi::PageScan readRequest(Arguments& call) {
  abi::PageScan request{};
  request.size = sizeof request;
  request.start = call.integer(1, "address");
  const uint64_t length = call.integer(2, "length");
  request.end = request.start + length;
  if (!call.object(3, "options")) return request;
  request.required = call.integerOption(3, "required", 0, kMaxSafe).value_or(0);
  request.anyOf = call.integerOption(3, "anyOf", 0, kMaxSafe).value_or(0);
  request.inverted = call.integerOption(3, "inverted", 0, kMaxSafe).value_or(0);
  request.returned = call.integerOption(3, "returned", 0, kMaxSafe).value_or(request.required | request.anyOf);
  request.mostPages = call.integerOption(3, "mostPages", 0, kMaxSafe).value_or(0);
  if (call.booleanOption(3, "reprotect").value_or(false)) request.flags = abi::kScanProtect | abi::kScanCheckWpAsync;
  return request;
}

void toNumbers(double* words, size_t runs) {
  for (size_t i = 0; i < runs; ++i, words += kRunWords) {
    abi::PageRun run;
    std::memcpy(&run, words, sizeof run);
    words[0] = static_cast<double>(run.start);
    words[1] = static_cast<double>(run.end);
    words[2] = static_cast<double>(run.categories);
  }
}

napi_value scanPages(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* pagemap = call.handle<Descriptor>(0, "pagemap");
  abi::PageScan request = readRequest(call);
  const View<double> into = call.doubles(4, "into");
  if (call.failed()) return nullptr;
  const size_t room = into.length / kRunWords;
  if (room == 0) return call.failRange("into holds less than one run of 3 numbers");
  int64_t runs = -EBADF;
  if (pagemap->fd() >= 0 && !isProc(pagemap->fd())) {
    runs = -ENOTTY;
  } else if (pagemap->fd() >= 0) {
    // SAFETY: the kernel writes at most `room` runs, which the view has; no JavaScript runs before they are converted.
    request.runs = reinterpret_cast<uintptr_t>(into.data);
    request.runsRoom = room;
    request.walkEnd = request.start;
    runs = ioctl(pagemap->fd(), abi::kPageScan, &request);
    if (runs < 0) runs = -errno;
    if (runs > 0) toNumbers(into.data, static_cast<size_t>(runs));
  }
  napi_value result = nullptr;
  napi_create_object(env, &result);
  put(env, result, "runs", call.number(static_cast<double>(runs)));
  put(env, result, "end", call.number(static_cast<double>(runs < 0 ? request.start : request.walkEnd)));
  return result;
}

napi_value openPagemap(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const uint64_t pid = call.absent(0) ? 0 : call.integer(0, "pid", 1, INT_MAX);
  if (call.failed()) return nullptr;
  const std::string path = "/proc/" + (pid == 0 ? "self" : std::to_string(pid)) + "/pagemap";
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return call.failErrno(errno, "open", path);
  return Descriptor::wrap(call.addon(), fd);
}

}  // namespace

void exportPageScan(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "openPagemap", openPagemap);
  exportFunction(addon, exports, "scanPages", scanPages);
  napi_value words = nullptr;
  napi_create_uint32(addon.env(), kRunWords, &words);
  put(addon.env(), exports, "RUN_WORDS", words);
}

}  // namespace uffd
