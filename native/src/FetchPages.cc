// The destination's half of an exchange of pages, without JavaScript between a fault and its page: reads faults, asks
// for their pages, waits without sleeping for the answers, installs them, and waits for the next fault. It does the simple case alone (pages of
// one block, asked for once, that come as they were asked for) and leaves everything else as it came: events in the
// ring, bytes in the buffer. It changes nothing but the log: the caller carries out what it says.
//
// Hot: no JavaScript and no allocation per page.

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "Descriptor.h"
#include "Exports.h"
#include "PageExchange.h"
#include "SpinWait.h"
#include "UffdAbi.h"
#include "UffdEvents.h"

namespace uffd::exchange {

namespace {

class Fetching {
 public:
  enum Plan : size_t {
    kAddress, kPages, kPageSize, kPageFlags, kFillFlags, kCommand, kNanos, kReadAt, kReadMost, kAsks,
    kFaults, kUnhandled, kUnsent, kBytesIn, kBytesOut, kContended, kLogged, kPlanWords
  };
  static constexpr double kAsked = 0, kPlaced = 1;
  static constexpr size_t kMostRequest = kRequestHead + kWord * kMostAtOnce;
  /** The largest page that is repeated from one byte here. */
  static constexpr size_t kMostFill = 65536;

  Fetching(Addon& addon, View<double> plan, int uffd, int link, View<uint8_t> requested, View<uint8_t> received,
           View<uint8_t> buffer, View<double> ring)
      : addon_(addon), uffd_(uffd), link_(link), requested_(requested), received_(received), buffer_(buffer),
        ring_(ring), log_(plan, kPlanWords) {}

  bool readPlan(const double* words) {
    uint64_t asks = 0;
    const bool whole =
        exactInteger(words[kAddress], address_) && exactInteger(words[kPages], pages_) &&
        exactInteger(words[kPageSize], pageSize_) && exactInteger(words[kPageFlags], pageFlags_) &&
        exactInteger(words[kFillFlags], fillFlags_) && exactInteger(words[kCommand], command_) &&
        exactInteger(words[kNanos], nanos_) &&
        exactInteger(words[kReadAt], readAt_) && exactInteger(words[kReadMost], readMost_) &&
        exactInteger(words[kAsks], asks);
    asks_ = asks != 0;
    return whole && std::has_single_bit(pageSize_) && pageSize_ <= kMostFill && pages_ <= kMaxSafe / pageSize_ &&
           pages_ <= requested_.length * 8 && pages_ <= received_.length * 8 && pageFlags_ < pageSize_ &&
           fillFlags_ < pageSize_ && command_ < 256 && nanos_ <= kTurn && kMostRequest <= buffer_.length &&
           readAt_ <= buffer_.length - kMostRequest && readMost_ <= buffer_.length - kMostRequest - readAt_ &&
           readMost_ >= kWord + pageSize_ && ring_.length >= kMostAtOnce * kEventWords;
  }

  void run(double* words) {
    SpinWait wait(static_cast<int64_t>(nanos_));
    const int64_t end = monotonicNow() + kTurn;
    bool last = false;
    while (log_.hasRoom(2 * kMostAtOnce)) {
      const bool asked = takeFaults();
      if (stopped_) break;
      const bool placed = !asked && takeAnswers();
      if (stopped_ || last) break;
      if (asked || placed) {
        const int64_t now = monotonicNow();
        if (now >= end || (asked && nanos_ == 0)) break;
        wait.restart(now);
        continue;
      }
      const SpinWait::Outcome outcome = wait.rest();
      if (outcome == SpinWait::Outcome::timeUp) break;
      last = outcome == SpinWait::Outcome::contended;
    }
    words[kFaults] = static_cast<double>(faults_);
    words[kUnhandled] = static_cast<double>(have_);
    words[kUnsent] = static_cast<double>(unsent_);
    words[kBytesIn] = static_cast<double>(bytesIn_);
    words[kBytesOut] = static_cast<double>(bytesOut_);
    words[kContended] = last ? 1 : 0;
    words[kLogged] = static_cast<double>(log_.count());
  }

 private:
  /** Reads faults and asks for their pages. */
  bool takeFaults() {
    abi::Message batch[kMostAtOnce];
    const ssize_t bytes = ::read(uffd_, batch, sizeof batch);
    if (bytes <= 0) {
      // An error is for whoever reads next to find.
      stopped_ = bytes == 0 || (errno != EAGAIN && errno != EINTR);
      return false;
    }
    const size_t count = static_cast<size_t>(bytes) / sizeof(abi::Message);
    if (asks_ && ask(batch, count)) return true;
    // SAFETY: the ring has room for as many events as the batch, see readPlan.
    for (size_t i = 0; i < count; ++i) decodeEvent(addon_, batch[i], ring_.data + i * kEventWords);
    faults_ = count;
    stopped_ = true;
    return false;
  }

  /** Whether all of these are faults on pages to be asked for, and the source has been. */
  bool ask(const abi::Message* batch, size_t count) {
    uint64_t asked[kMostAtOnce];
    size_t wanted = 0;
    for (size_t i = 0; i < count; ++i) {
      if (batch[i].event != abi::kPagefault || batch[i].pagefault.address < address_) return false;
      const uint64_t page = (batch[i].pagefault.address - address_) / pageSize_;
      if (page >= pages_ || test(requested_, page) || test(received_, page) || isLogged(kAsked, page)) return false;
      if (std::find(asked, asked + wanted, page) == asked + wanted) asked[wanted++] = page;
    }
    uint8_t* request = buffer_.data + buffer_.length - kMostRequest;
    request[0] = static_cast<uint8_t>(command_);
    putHalf(request + 1, static_cast<uint32_t>(wanted));
    for (size_t i = 0; i < wanted; ++i) putWord(request + kRequestHead + kWord * i, asked[i]);
    const size_t length = kRequestHead + kWord * wanted;
    ssize_t sent = 0;
    do sent = ::send(link_, request, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent <= 0) return false;
    bytesOut_ += static_cast<size_t>(sent);
    if (static_cast<size_t>(sent) < length) {
      // The rest goes to the end of the buffer, where the caller finds it.
      unsent_ = length - static_cast<size_t>(sent);
      std::memmove(buffer_.data + buffer_.length - unsent_, request + sent, unsent_);
      stopped_ = true;
    }
    const auto now = static_cast<double>(monotonicNow());
    for (size_t i = 0; i < wanted; ++i) log_.add(kAsked, static_cast<double>(asked[i]), now, 0);
    return true;
  }

  /** Reads what the source has sent and installs the pages asked for. */
  bool takeAnswers() {
    const ssize_t n = ::recv(link_, buffer_.data + readAt_ + have_, readMost_ - have_, MSG_DONTWAIT);
    if (n <= 0) {
      stopped_ = n == 0 || (errno != EAGAIN && errno != EINTR);
      return false;
    }
    have_ += static_cast<size_t>(n);
    size_t at = 0;
    size_t used = 0;
    while (log_.hasRoom(kMostAtOnce + 1) && (used = place(at)) > 0) at += used;
    bytesIn_ += at;
    have_ -= at;
    std::memmove(buffer_.data + readAt_, buffer_.data + readAt_ + at, have_);
    if (have_ > 0 && !mayGrow()) stopped_ = true;
    return at > 0;
  }

  /** Whether what is there is the beginning of an answer. */
  bool mayGrow() const {
    if (have_ < kWord) return have_ < readMost_;
    uint64_t page = 0;
    bool fill = false;
    return isAnswer(getWord(buffer_.data + readAt_), page, fill) && have_ < kWord + (fill ? 1 : pageSize_);
  }

  bool isAnswer(uint64_t word, uint64_t& page, bool& fill) const {
    const uint64_t flags = word % pageSize_;
    page = word / pageSize_;
    fill = flags == fillFlags_;
    return (fill || flags == pageFlags_) && page < pages_ && !test(received_, page) && !isLogged(kPlaced, page) &&
           (test(requested_, page) || isLogged(kAsked, page));
  }

  /** Bytes of the answer at `at` of what is there, once it is installed; else 0. */
  size_t place(size_t at) {
    if (have_ - at < kWord + 1) return 0;
    const uint8_t* record = buffer_.data + readAt_ + at;
    uint64_t page = 0;
    bool fill = false;
    if (!isAnswer(getWord(record), page, fill)) return 0;
    const size_t length = kWord + (fill ? 1 : pageSize_);
    if (have_ - at < length || !install(page, record + kWord, fill)) return 0;
    log_.add(kPlaced, static_cast<double>(page), static_cast<double>(monotonicNow()), fill ? 1 : 0);
    return length;
  }

  bool install(uint64_t page, const uint8_t* bytes, bool fill) {
    const uint64_t address = address_ + page * pageSize_;
    if (fill && *bytes == 0) {
      abi::Fill zero{{address, pageSize_}, 0, 0};
      return ioctl(uffd_, abi::kZeropage, &zero) == 0 && zero.done == static_cast<int64_t>(pageSize_);
    }
    uint8_t repeated[kMostFill];
    if (fill) {
      std::memset(repeated, *bytes, pageSize_);
      bytes = repeated;
    }
    abi::Copy copy{address, reinterpret_cast<uintptr_t>(bytes), pageSize_, 0, 0};
    return ioctl(uffd_, abi::kCopy, &copy) == 0 && copy.done == static_cast<int64_t>(pageSize_);
  }

  bool isLogged(double kind, uint64_t page) const {
    for (size_t i = log_.count(); i > 0; --i) {
      if (log_.word(i - 1, 0) == kind && log_.word(i - 1, 1) == static_cast<double>(page)) return true;
    }
    return false;
  }

  Addon& addon_;
  const int uffd_;
  const int link_;
  const View<uint8_t> requested_;
  const View<uint8_t> received_;
  const View<uint8_t> buffer_;
  const View<double> ring_;
  Log log_;
  uint64_t address_ = 0, pages_ = 0, pageSize_ = 0, pageFlags_ = 0, fillFlags_ = 0, command_ = 0,
           nanos_ = 0, readAt_ = 0, readMost_ = 0;
  bool asks_ = false, stopped_ = false;
  size_t have_ = 0, faults_ = 0, unsent_ = 0, bytesIn_ = 0, bytesOut_ = 0;
};

napi_value fetchPages(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  auto* link = call.handle<Descriptor>(1, "link");
  const View<double> plan = call.doubles(2, "plan");
  const View<uint8_t> requested = call.bytes(3, "requested");
  const View<uint8_t> received = call.bytes(4, "received");
  const View<uint8_t> buffer = call.bytes(5, "buffer");
  const View<double> ring = call.doubles(6, "ring");
  if (call.failed()) return nullptr;
  if (plan.length < Fetching::kPlanWords + Log::kEntry * 2 * kMostAtOnce) return call.failRange("plan is too short");
  if (uffd->fd() < 0 || link->fd() < 0) return call.number(-EBADF);
  if (!uffd->isUserfaultfd()) return call.number(-ENOTTY);
  Fetching fetching(call.addon(), plan, uffd->fd(), link->fd(), requested, received, buffer, ring);
  if (!fetching.readPlan(plan.data)) return call.failRange("plan is not one that can be carried out");
  fetching.run(plan.data);
  return call.number(plan.data[Fetching::kLogged]);
}

}  // namespace

}  // namespace uffd::exchange

namespace uffd {

void exportFetchPages(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "fetchPages", exchange::fetchPages);
}

}  // namespace uffd
