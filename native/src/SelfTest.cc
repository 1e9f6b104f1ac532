// A constant that is wrong by a bit installs nothing, or something else, and says EINVAL at best: Cloud Hypervisor
// shipped such ones for weeks. So each ioctl is carried out once on memory of its own and its effect is looked at; the
// first open of a process does so too, and refuses to go on where something differs.

#include "SelfTest.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "Arguments.h"
#include "Exports.h"
#include "Failure.h"
#include "PagemapAbi.h"
#include "UffdAbi.h"

namespace uffd {

namespace {

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

std::string failed(const char* what) {
  const char* name = errnoName(errno);
  return std::string(what) + ": " + (name != nullptr ? name : std::to_string(errno));
}

/** Some pages and a userfaultfd that serves them; user mode only, which needs no privilege. */
class Bench {
 public:
  Bench(uint64_t features, uint64_t mode, bool shared = false) {
    fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | abi::kUserModeOnly));
    if (fd_ < 0) return;
    abi::Api api{abi::kApiVersion, features, 0};
    if (ioctl(fd_, abi::kApi, &api) < 0) return;
    if (shared) memfd_ = memfd_create("self-test", MFD_CLOEXEC);
    if (shared && (memfd_ < 0 || ftruncate(memfd_, static_cast<off_t>(kPages * page())) < 0)) return;
    void* memory = mmap(nullptr, kPages * page(), PROT_READ | PROT_WRITE,
                        shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, memfd_, 0);
    if (memory == MAP_FAILED) return;
    memory_ = static_cast<uint8_t*>(memory);
    madvise(memory_, kPages * page(), MADV_NOHUGEPAGE);
    abi::Register request{{address(0), kPages * page()}, mode, 0};
    absent = false;
    ready = ioctl(fd_, abi::kRegister, &request) == 0;
    ioctls = request.ioctls;
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench() {
    if (fd_ >= 0) ::close(fd_);
    if (memory_ != nullptr) munmap(memory_, kPages * page());
    if (memfd_ >= 0) ::close(memfd_);
  }
  static constexpr size_t kPages = 4;
  /** There is no userfaultfd here, or no memory: that says nothing about constants. */
  bool absent = true;
  bool ready = false;
  uint64_t ioctls = 0;
  int fd() const { return fd_; }
  int memfd() const { return memfd_; }
  uint8_t* at(size_t index) const { return memory_ + index * page(); }
  uint64_t address(size_t index) const { return reinterpret_cast<uintptr_t>(at(index)); }
  bool offers(unsigned long number) const { return (ioctls >> _IOC_NR(number) & 1) != 0; }

  int64_t copy(size_t index, const uint8_t* source, uint64_t mode = 0) const {
    abi::Copy request{address(index), reinterpret_cast<uintptr_t>(source), page(), mode, 0};
    return ioctl(fd_, abi::kCopy, &request) == 0 || request.done != 0 ? request.done : -errno;
  }
  int64_t fill(unsigned long number, size_t index) const {
    abi::Fill request{{address(index), page()}, 0, 0};
    return ioctl(fd_, number, &request) == 0 || request.done != 0 ? request.done : -errno;
  }

 private:
  int fd_ = -1;
  int memfd_ = -1;
  uint8_t* memory_ = nullptr;
};

Check unready(const char* name, const Bench& bench) {
  return {name, bench.absent ? "" : failed("UFFDIO_REGISTER"), !bench.absent};
}

std::string expect(const char* what, int64_t got, int64_t wanted) {
  return got == wanted ? "" : std::string(what) + " gave " + std::to_string(got) + ", not " + std::to_string(wanted);
}

std::string contentIs(const char* what, const uint8_t* memory, uint8_t byte) {
  return memory[0] == byte && memory[page() - 1] == byte ? "" : std::string(what) + " left other bytes behind";
}

std::string first(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return {};
}

const std::vector<uint8_t>& sevens() {
  static const auto* bytes = new std::vector<uint8_t>(page(), 7);
  return *bytes;
}

uint64_t offeredFeatures() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | abi::kUserModeOnly));
  if (fd < 0) return 0;
  abi::Api api{abi::kApiVersion, 0, 0};
  const int status = ioctl(fd, abi::kApi, &api);
  ::close(fd);
  return status == 0 ? api.features : 0;
}

Check copies() {
  const Bench bench(0, abi::kModeMissing);
  if (!bench.ready) return unready("COPY", bench);
  const auto size = static_cast<int64_t>(page());
  std::string wrong = first({expect("UFFDIO_COPY", bench.copy(1, sevens().data()), size),
                             expect("UFFDIO_COPY of a present page", bench.copy(1, sevens().data()), -EEXIST)});
  abi::Range range{bench.address(0), page()};
  if (wrong.empty()) wrong = contentIs("UFFDIO_COPY", bench.at(1), 7);
  if (wrong.empty() && ioctl(bench.fd(), abi::kWake, &range) < 0) wrong = failed("UFFDIO_WAKE");
  return {"COPY", wrong, bench.offers(abi::kCopy)};
}

Check zeros() {
  const Bench bench(0, abi::kModeMissing);
  if (!bench.ready) return unready("ZEROPAGE", bench);
  const bool offered = bench.offers(abi::kZeropage);
  if (!offered) return {"ZEROPAGE", {}, false};
  std::string wrong = expect("UFFDIO_ZEROPAGE", bench.fill(abi::kZeropage, 0), static_cast<int64_t>(page()));
  if (wrong.empty()) wrong = contentIs("UFFDIO_ZEROPAGE", bench.at(0), 0);
  return {"ZEROPAGE", wrong, true};
}

Check poison(uint64_t features) {
  if ((features & abi::kFeaturePoison) == 0) return {"POISON", {}, false};
  const Bench bench(abi::kFeaturePoison, abi::kModeMissing);
  if (!bench.ready) return unready("POISON", bench);
  if (!bench.offers(abi::kPoison)) return {"POISON", "the feature is there and the ioctl's bit is not", true};
  const auto size = static_cast<int64_t>(page());
  std::string wrong = first({expect("UFFDIO_POISON", bench.fill(abi::kPoison, 0), size),
                             expect("UFFDIO_COPY over poison", bench.copy(0, sevens().data()), size)});
  if (wrong.empty()) wrong = contentIs("UFFDIO_COPY over poison", bench.at(0), 7);
  return {"POISON", wrong, true};
}

Check moves(uint64_t features) {
  if ((features & abi::kFeatureMove) == 0) return {"MOVE", {}, false};
  const Bench bench(abi::kFeatureMove, abi::kModeMissing);
  if (!bench.ready) return unready("MOVE", bench);
  if (!bench.offers(abi::kMove)) return {"MOVE", "the feature is there and the ioctl's bit is not", true};
  void* source = mmap(nullptr, page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (source == MAP_FAILED) return {"MOVE", failed("mmap"), true};
  std::memset(source, 9, page());
  abi::Move request{bench.address(2), reinterpret_cast<uintptr_t>(source), page(), 0, 0};
  const int status = ioctl(bench.fd(), abi::kMove, &request);
  std::string wrong = status < 0 ? failed("UFFDIO_MOVE")
                                 : expect("UFFDIO_MOVE", request.done, static_cast<int64_t>(page()));
  if (wrong.empty()) wrong = contentIs("UFFDIO_MOVE", bench.at(2), 9);
  munmap(source, page());
  return {"MOVE", wrong, true};
}

Check continues(uint64_t features) {
  if ((features & abi::kFeatureMinorShmem) == 0) return {"CONTINUE", {}, false};
  const Bench bench(abi::kFeatureMinorShmem, abi::kModeMinor, true);
  if (!bench.ready) return unready("CONTINUE", bench);
  if (!bench.offers(abi::kContinue)) return {"CONTINUE", "the feature is there and the ioctl's bit is not", true};
  if (pwrite(bench.memfd(), sevens().data(), page(), 0) < 0) return {"CONTINUE", failed("pwrite"), true};
  std::string wrong = expect("UFFDIO_CONTINUE", bench.fill(abi::kContinue, 0), static_cast<int64_t>(page()));
  if (wrong.empty()) wrong = contentIs("UFFDIO_CONTINUE", bench.at(0), 7);
  return {"CONTINUE", wrong, true};
}

/** WRITEPROTECT, WP_ASYNC and PAGEMAP_SCAN belong together: written is what is not protected any more. */
Check tracks(uint64_t features) {
  constexpr uint64_t needed = abi::kFeatureWpAsync | abi::kFeatureWpUnpopulated | abi::kFeaturePagefaultFlagWp;
  if ((features & needed) != needed) return {"WRITEPROTECT and PAGEMAP_SCAN", {}, false};
  const Bench bench(needed, abi::kModeWp);
  if (!bench.ready) return unready("WRITEPROTECT and PAGEMAP_SCAN", bench);
  const auto scan = [&](uint64_t flags, abi::PageRun* runs) -> int64_t {
    const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    abi::PageScan request{};
    request.size = sizeof request;
    request.flags = flags;
    request.start = bench.address(0);
    request.end = bench.address(Bench::kPages);
    request.runs = reinterpret_cast<uintptr_t>(runs);
    request.runsRoom = Bench::kPages;
    request.required = request.returned = abi::kPageWritten;
    const int count = ioctl(pagemap, abi::kPageScan, &request);
    const int error = errno;
    ::close(pagemap);
    return count < 0 ? -error : count;
  };
  const auto check = [&] {
    if (!bench.offers(abi::kWriteProtect)) return std::string("the ioctl's bit is missing");
    abi::WriteProtect request{{bench.address(0), Bench::kPages * page()}, abi::kProtect};
    if (ioctl(bench.fd(), abi::kWriteProtect, &request) < 0) return failed("UFFDIO_WRITEPROTECT");
    abi::PageRun runs[Bench::kPages] = {};
    std::string text = expect("PAGEMAP_SCAN of protected pages", scan(0, runs), 0);
    *static_cast<volatile uint8_t*>(bench.at(2)) = 1;
    if (text.empty()) text = expect("PAGEMAP_SCAN", scan(abi::kScanProtect | abi::kScanCheckWpAsync, runs), 1);
    const bool right = runs[0].start == bench.address(2) && runs[0].end == bench.address(3) &&
                       runs[0].categories == abi::kPageWritten;
    if (text.empty() && !right) text = "PAGEMAP_SCAN gave another run than the page written";
    return text.empty() ? expect("PAGEMAP_SCAN after protecting", scan(0, runs), 0) : text;
  };
  return {"WRITEPROTECT and PAGEMAP_SCAN", check(), true};
}

void* touch(void* byte) {
  *static_cast<volatile uint8_t*>(byte) = 1;
  return nullptr;
}

Check faults(uint64_t features) {
  constexpr uint64_t wanted = abi::kFeatureThreadId | abi::kFeatureExactAddress;
  const Bench bench(features & wanted, abi::kModeMissing);
  if (!bench.ready) return unready("PAGEFAULT", bench);
  uint8_t* byte = bench.at(3) + 5;
  pthread_t thread;
  if (pthread_create(&thread, nullptr, touch, byte) != 0) return {"PAGEFAULT", failed("pthread_create"), true};
  pollfd poll{bench.fd(), POLLIN, 0};
  abi::Message message{};
  std::string wrong;
  while (::poll(&poll, 1, -1) < 0 && errno == EINTR) {
  }
  if (read(bench.fd(), &message, sizeof message) != sizeof message) wrong = failed("read");
  // Whatever was read: the thread must go on, or it would be waited for in vain.
  bench.copy(3, sevens().data());
  pthread_join(thread, nullptr);
  const uint64_t exact = (features & abi::kFeatureExactAddress) != 0 ? 5 : 0;
  if (wrong.empty()) wrong = expect("the event", message.event, abi::kPagefault);
  if (wrong.empty()) wrong = expect("its flags (write)", static_cast<int64_t>(message.pagefault.flags), 1);
  if (wrong.empty()) {
    wrong = expect("its address", static_cast<int64_t>(message.pagefault.address),
                   static_cast<int64_t>(bench.address(3) + exact));
  }
  const bool hasThread = (features & abi::kFeatureThreadId) != 0;
  if (wrong.empty() && hasThread && message.pagefault.thread == 0) wrong = "the event has no thread id";
  return {"PAGEFAULT", wrong, true};
}

napi_value selfTestOf(napi_env env, napi_callback_info info) {
  const Arguments call(env, info);
  napi_value list = nullptr;
  napi_create_array(env, &list);
  uint32_t index = 0;
  for (const Check& check : selfTest(true)) {
    napi_value entry = nullptr;
    napi_create_object(env, &entry);
    put(env, entry, "name", call.string(check.name));
    put(env, entry, "offered", call.boolean(check.offered));
    put(env, entry, "ok", call.boolean(check.wrong.empty()));
    put(env, entry, "detail", call.string(check.wrong));
    napi_set_element(env, list, index++, entry);
  }
  return list;
}

}  // namespace

std::vector<Check> selfTest(bool whole) {
  const uint64_t features = offeredFeatures();
  std::vector<Check> checks{copies(), zeros(), poison(features)};
  if (!whole) return checks;
  checks.push_back(moves(features));
  checks.push_back(continues(features));
  checks.push_back(tracks(features));
  checks.push_back(faults(features));
  return checks;
}

void exportSelfTest(Addon& addon, napi_value exports) { exportFunction(addon, exports, "selfTest", selfTestOf); }

}  // namespace uffd
