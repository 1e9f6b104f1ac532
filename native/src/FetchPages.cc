// The destination's half of an exchange of pages, without JavaScript between a fault and its page: reads faults, asks
// for their pages, waits without sleeping for the answers, installs them, and waits for the next fault. Pages that nobody
// asked for are installed on the way, neighbours together. It does the simple case alone (pages of one block that come
// once) and leaves everything else as it came: events in the ring, bytes in the buffer. It changes nothing but the log:
// the caller carries out what it says.
//
// Hot: no JavaScript and no allocation per page.

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "Descriptor.h"
#include "Exports.h"
#include "PageExchange.h"
#include "SeenPages.h"
#include "SpinWait.h"
#include "UffdAbi.h"
#include "UffdEvents.h"

namespace uffd::exchange {

namespace {

class Fetching {
 public:
  enum Plan : size_t {
    kAddress, kPages, kPageSize, kPageFlags, kFillFlags, kCommand, kNanos, kReadAt, kReadMost, kAsks, kHave,
    kFaults, kUnhandled, kUnsent, kBytesIn, kBytesOut, kContended, kLogged, kPlanWords
  };
  /** Kinds of log entries: a page that was asked for, one that came, a run that nobody had asked for. */
  static constexpr double kAsked = 0, kPlaced = 1, kRun = 2, kFillRun = 3;
  static constexpr size_t kMostRequest = kRequestHead + kWord * kMostAtOnce;
  /** Bytes installed at once; the largest page that is taken here. */
  static constexpr size_t kMostBytes = 65536;
  /** Pages of zeros installed at once. */
  static constexpr uint64_t kMostZeros = 256;

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
        readPatience(words[kNanos], nanos_, sleeps_) && exactInteger(words[kReadAt], readAt_) && exactInteger(words[kReadMost], readMost_) &&
        exactInteger(words[kAsks], asks) && exactInteger(words[kHave], have_);
    asks_ = asks != 0;
    return whole && std::has_single_bit(pageSize_) && pageSize_ <= kMostBytes && pages_ <= kMaxSafe / pageSize_ &&
           pages_ <= requested_.length * 8 && pages_ <= received_.length * 8 && pageFlags_ < pageSize_ &&
           fillFlags_ < pageSize_ && command_ < 256 && kMostRequest <= buffer_.length &&
           readAt_ <= buffer_.length - kMostRequest && readMost_ <= buffer_.length - kMostRequest - readAt_ &&
           readMost_ >= kWord + pageSize_ && have_ <= readMost_ - (kWord + pageSize_) &&
           ring_.length >= kMostAtOnce * kEventWords;
  }

  void run(double* words) {
    SpinWait wait(static_cast<int64_t>(nanos_));
    const int64_t end = monotonicNow() + kTurn;
    bool last = false;
    while (hasRoom(2 * kMostAtOnce)) {
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
      const SpinWait::Outcome outcome = sleeps_ ? asleep(wait) : wait.rest();
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
  /** Until a fault or an answer comes. */
  SpinWait::Outcome asleep(const SpinWait& wait) const {
    pollfd polled[] = {{link_, POLLIN, 0}, {uffd_, POLLIN, 0}};
    return wait.sleep(polled, 2);
  }

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
      if (page >= pages_ || test(requested_, page) || test(received_, page) || isSeen(page)) return false;
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
    for (size_t i = 0; i < wanted; ++i) {
      log_.add(kAsked, static_cast<double>(asked[i]), now, 0);
      asked_.add(asked[i], 1);
    }
    return true;
  }

  /** Reads what the source has sent and installs it. */
  bool takeAnswers() {
    const bool scattered = dense_ && have_ == 0;
    const ssize_t n = scattered ? readScattered()
                                : ::recv(link_, buffer_.data + readAt_ + have_, readMost_ - have_, MSG_DONTWAIT);
    if (n <= 0) {
      stopped_ = n == 0 || (errno != EAGAIN && errno != EINTR);
      return false;
    }
    whole_ = 0;
    const size_t placed = scattered ? placeScattered(static_cast<size_t>(n)) : 0;
    if (!scattered) have_ += static_cast<size_t>(n);
    size_t at = 0;
    size_t used = 0;
    while (hasRoom(kMostAtOnce + 1) && (used = place(at)) > 0) at += used;
    bytesIn_ += placed + at;
    dense_ = whole_ > 1;
    have_ -= at;
    std::memmove(buffer_.data + readAt_, buffer_.data + readAt_ + at, have_);
    if (have_ > 0 && !mayGrow()) stopped_ = true;
    return placed + at > 0;
  }

  /** Whole pages one behind the other are read apart from their words: no byte of them has to be moved. */
  ssize_t readScattered() {
    const size_t slots = std::min({kMostAtOnce, kMostBytes / pageSize_, readMost_ / (kWord + pageSize_)});
    iovec parts[2 * kMostAtOnce];
    for (size_t i = 0; i < slots; ++i) {
      parts[2 * i] = {heads_ + i * kWord, kWord};
      parts[2 * i + 1] = {staging_ + i * pageSize_, pageSize_};
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2 * slots;
    repeats_ = 0;
    return ::recvmsg(link_, &message, MSG_DONTWAIT);
  }

  /** Installs the pages among so many bytes as far as they are whole and alike; the rest goes to the buffer. How many bytes. */
  size_t placeScattered(size_t bytes) {
    const size_t length = kWord + pageSize_;
    const size_t whole = bytes / length;
    size_t i = 0;
    while (i < whole && hasRoom(kMostAtOnce + 1)) {
      Record record;
      const uint64_t word = getWord(heads_ + i * kWord);
      if (!isRecord(word, record) || record.fill) break;
      uint64_t count = 1;
      while (i + count < whole && getWord(heads_ + (i + count) * kWord) == word + count * pageSize_) ++count;
      const size_t placed = placeRun(record, staging_ + i * pageSize_, pageSize_, count);
      if (placed == 0) break;
      i += placed;
    }
    for (size_t at = i * length; at < bytes;) {
      const size_t slot = at / length;
      const size_t in = at % length;
      const size_t n = std::min(bytes - at, in < kWord ? kWord - in : length - in);
      std::memcpy(buffer_.data + readAt_ + have_, in < kWord ? heads_ + slot * kWord + in
                                                             : staging_ + slot * pageSize_ + (in - kWord), n);
      have_ += n;
      at += n;
    }
    return i * length;
  }

  struct Record {
    uint64_t page;
    bool fill;
    size_t length;
  };

  /** Whether a word begins a record that is for here: of a page that has not come. */
  bool isRecord(uint64_t word, Record& record) const {
    const uint64_t flags = word % pageSize_;
    record.page = word / pageSize_;
    record.fill = flags == fillFlags_;
    record.length = kWord + (record.fill ? 1 : pageSize_);
    return (record.fill || flags == pageFlags_) && record.page < pages_ && !test(received_, record.page) &&
           !placed_.has(record.page);
  }

  /** Whether what is there is the beginning of a record. */
  bool mayGrow() const {
    if (have_ < kWord) return true;
    Record record;
    return isRecord(getWord(buffer_.data + readAt_), record) && have_ < record.length;
  }

  /** Bytes of the record at `at` of what is there, and of those like it that follow, once they are installed; else 0. */
  size_t place(size_t at) {
    if (have_ - at < kWord + 1) return 0;
    const uint8_t* bytes = buffer_.data + readAt_ + at;
    const uint64_t word = getWord(bytes);
    Record record;
    if (!isRecord(word, record) || have_ - at < record.length) return 0;
    const uint64_t zeros = record.fill && bytes[kWord] == 0 ? kMostZeros : kMostBytes / pageSize_;
    const uint64_t most = std::min(zeros, static_cast<uint64_t>((have_ - at) / record.length));
    uint64_t count = 1;
    for (; count < most; ++count) {
      const uint8_t* next = bytes + count * record.length;
      if (getWord(next) != word + count * pageSize_ || (record.fill && next[kWord] != bytes[kWord])) break;
    }
    return placeRun(record, bytes + kWord, record.length, count) * record.length;
  }

  /**
   * Installs at most `count` neighbouring pages whose bytes lie `stride` apart: one that was asked for alone, others
   * together. How many, from the first.
   */
  uint64_t placeRun(const Record& record, const uint8_t* bytes, size_t stride, uint64_t count) {
    const uint64_t page = record.page;
    const bool asked = test(requested_, page) || asked_.has(page);
    if (asked) {
      count = 1;
    } else {
      count = std::min(count, pages_ - page);
      for (uint64_t i = 1; i < count; ++i) {
        if (test(requested_, page + i) || test(received_, page + i)) count = i;
      }
      count = placed_.without(page, asked_.without(page, count));
    }
    const uint64_t placed = install(record, bytes, stride, count);
    if (placed == 0) return 0;
    const auto now = static_cast<double>(monotonicNow());
    if (asked) log_.add(kPlaced, static_cast<double>(page), now, record.fill ? 1 : 0);
    else log_.add(record.fill ? kFillRun : kRun, static_cast<double>(page), now, static_cast<double>(placed));
    placed_.add(page, placed);
    if (!record.fill) whole_ += placed;
    return placed;
  }

  /** Installs neighbouring pages whose bytes lie `stride` apart: how many, from the first. */
  uint64_t install(const Record& record, const uint8_t* bytes, size_t stride, uint64_t count) {
    const uint64_t address = address_ + record.page * pageSize_;
    const uint64_t length = count * pageSize_;
    if (record.fill && *bytes == 0) {
      abi::Fill zero{{address, length}, 0, 0};
      ioctl(uffd_, abi::kZeropage, &zero);
      return zero.done > 0 ? static_cast<uint64_t>(zero.done) / pageSize_ : 0;
    }
    if (record.fill) repeat(*bytes, length);
    else if (count > 1 && stride != pageSize_) {
      repeats_ = 0;
      for (uint64_t i = 0; i < count; ++i) std::memcpy(staging_ + i * pageSize_, bytes + i * stride, pageSize_);
    }
    const bool inPlace = !record.fill && (count == 1 || stride == pageSize_);
    abi::Copy copy{address, reinterpret_cast<uintptr_t>(inPlace ? bytes : staging_), length, 0, 0};
    ioctl(uffd_, abi::kCopy, &copy);
    return copy.done > 0 ? static_cast<uint64_t>(copy.done) / pageSize_ : 0;
  }

  /** Makes the staging area begin with so many times this byte, unless it does. */
  void repeat(uint8_t byte, size_t length) {
    if (repeats_ < length || staging_[0] != byte) {
      std::memset(staging_, byte, length);
      repeats_ = length;
    }
  }

  bool isSeen(uint64_t page) const { return asked_.has(page) || placed_.has(page); }

  bool hasRoom(size_t entries) const {
    return log_.hasRoom(entries) && asked_.hasRoom(kMostAtOnce) && placed_.hasRoom(1);
  }

  Addon& addon_;
  const int uffd_;
  const int link_;
  const View<uint8_t> requested_;
  const View<uint8_t> received_;
  const View<uint8_t> buffer_;
  const View<double> ring_;
  Log log_;
  SeenPages asked_;
  SeenPages placed_;
  uint64_t address_ = 0, pages_ = 0, pageSize_ = 0, pageFlags_ = 0, fillFlags_ = 0, command_ = 0,
           nanos_ = 0, readAt_ = 0, readMost_ = 0;
  uint8_t heads_[kWord * kMostAtOnce];
  uint8_t staging_[kMostBytes];
  /** Bytes at the beginning of the staging area that are the same. */
  size_t repeats_ = 0;
  /** Whole pages that came with the last bytes; whether they were several, so that more are likely to follow. */
  uint64_t whole_ = 0;
  bool dense_ = false;
  bool asks_ = false, stopped_ = false, sleeps_ = false;
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
