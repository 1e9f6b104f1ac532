// The source's half of an exchange of pages, without JavaScript between request and answer: waits for requests without
// sleeping, and answers those that are simple from a region; between them it pushes pages that nobody asked for, where it
// is to. What it cannot do, it leaves as it came: bytes that are no such request, pages that are not to be sent, a socket
// that takes nothing. It changes nothing but the log: the caller carries out what it says.
//
// Hot: no JavaScript and no allocation per request.

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "Descriptor.h"
#include "Exports.h"
#include "Mapping.h"
#include "RangeVector.h"
#include "Region.h"
#include "SeenPages.h"
#include "SpinWait.h"

namespace uffd::exchange {

namespace {

class Answering {
 public:
  enum Plan : size_t {
    kPages, kPageSize, kPageFlags, kFillFlags, kCommand, kNanos, kCursor, kAnswers, kUnread,
    kUnhandled, kPendingAt, kPendingEnd, kBytesIn, kContended, kFull, kLogged, kPlanWords
  };
  /** Pages of one request that are answered here, at most. */
  static constexpr uint64_t kMostAsked = kMostAtOnce;
  /** Bytes pushed at once: the longest a request waits here. */
  static constexpr size_t kChunk = 32 * 1024;
  /** Pages pushed at once: those of one byte take hardly any room, but time to be read. */
  static constexpr size_t kMostPushed = 128;
  /** Pages behind the cursor within which the guest follows it, and how much more may go before it then. */
  static constexpr uint64_t kNear = 16;
  static constexpr uint64_t kFollowed = 16;

  Answering(View<double> plan, int link, Region& region, View<uint8_t> dirty, View<uint8_t> in, View<uint8_t> out)
      : link_(link), region_(region), dirty_(dirty), in_(in), out_(out), log_(plan, kPlanWords) {}

  bool readPlan(const double* words) {
    answers_ = words[kAnswers] != 0;
    return exactInteger(words[kPages], pages_) && exactInteger(words[kPageSize], pageSize_) &&
           exactInteger(words[kPageFlags], pageFlags_) && exactInteger(words[kFillFlags], fillFlags_) &&
           exactInteger(words[kCommand], command_) && readPatience(words[kNanos], nanos_, sleeps_) &&
           exactInteger(words[kCursor], cursor_) && exactInteger(words[kUnread], unread_) && std::has_single_bit(pageSize_) &&
           pageSize_ <= out_.length && pages_ <= kMaxSafe / pageSize_ && pages_ <= dirty_.length * 8 &&
           pageFlags_ < pageSize_ && fillFlags_ < pageSize_ && command_ < 256 &&
           in_.length >= kRequestHead + kWord * kMostAsked;
  }

  void run(double* words) {
    SpinWait wait(static_cast<int64_t>(nanos_));
    const int64_t end = monotonicNow() + kTurn;
    bool last = false;
    bool contended = false;
    while (hasRoom()) {
      const ssize_t n = ::recv(link_, in_.data + have_, in_.length - have_, MSG_DONTWAIT);
      if (n > 0) {
        have_ += static_cast<size_t>(n);
        if (!answerAll()) break;
      } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        // The end of the stream and errors are for whoever reads next to find.
        break;
      }
      if (n > 0 || push()) {
        const int64_t now = monotonicNow();
        if (now >= end || pendingEnd_ > 0) break;
        if (have_ == 0) wait.restart(now);
        continue;
      }
      if (last || pendingEnd_ > 0) break;
      const SpinWait::Outcome outcome = sleeps_ ? asleep(wait) : wait.rest();
      if (outcome == SpinWait::Outcome::timeUp) break;
      last = contended = outcome == SpinWait::Outcome::contended;
    }
    words[kCursor] = static_cast<double>(cursor_);
    words[kUnhandled] = static_cast<double>(have_);
    words[kPendingAt] = static_cast<double>(pendingAt_);
    words[kPendingEnd] = static_cast<double>(pendingEnd_);
    words[kBytesIn] = static_cast<double>(bytesIn_);
    words[kContended] = contended ? 1 : 0;
    words[kFull] = full_ ? 1 : 0;
    words[kLogged] = static_cast<double>(log_.count());
  }

 private:
  /** Until a request comes, or room for what is to be pushed. */
  SpinWait::Outcome asleep(const SpinWait& wait) const {
    pollfd polled{link_, static_cast<short>(full_ ? POLLIN | POLLOUT : POLLIN), 0};
    return wait.sleep(&polled, 1);
  }

  /** Answers the requests that are there. False when what follows is not for here. */
  bool answerAll() {
    if (!answers_) return false;
    while (have_ >= kRequestHead) {
      const uint64_t count = getHalf(in_.data + 1);
      if (in_.data[0] != command_ || count == 0 || count > kMostAsked) return false;
      const size_t length = kRequestHead + kWord * count;
      if (have_ < length) return true;
      if (!hasRoom() || !answer(count)) return false;
      bytesIn_ += length;
      have_ -= length;
      std::memmove(in_.data, in_.data + length, have_);
      if (pendingEnd_ > 0) return false;
    }
    return have_ == 0 || in_.data[0] == command_;
  }

  bool answer(uint64_t count) {
    uint64_t asked[kMostAsked];
    uint64_t wanted = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t page = getWord(in_.data + kRequestHead + kWord * i);
      // A page that was sent, is sent here already, or is not of this block: what that means is not for here.
      if (page >= pages_ || !test(dirty_, page) || seen_.has(page)) return false;
      if (std::find(asked, asked + wanted, page) == asked + wanted) asked[wanted++] = page;
    }
    if (wanted * (kWord + pageSize_) > out_.length) return false;
    size_t end = 0;
    int64_t fills[kMostAsked];
    size_t sizes[kMostAsked];
    for (uint64_t i = 0; i < wanted; ++i) {
      const uint64_t offset = asked[i] * pageSize_;
      // SAFETY: the check above left room for `kWord` and a whole page behind `end`.
      fills[i] = region_.hold()->gather(offset, out_.data + end + kWord, pageSize_);
      if (fills[i] < -1) return false;
      putWord(out_.data + end, offset | (fills[i] < 0 ? pageFlags_ : fillFlags_));
      sizes[i] = kWord + (fills[i] < 0 ? pageSize_ : 1);
      end += sizes[i];
    }
    ssize_t sent = 0;
    do sent = ::send(link_, out_.data, end, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent <= 0) return false;
    if (static_cast<size_t>(sent) < end) {
      pendingAt_ = static_cast<size_t>(sent);
      pendingEnd_ = end;
    }
    for (uint64_t i = 0; i < wanted; ++i) {
      log_.add(static_cast<double>(asked[i]), static_cast<double>(fills[i]), static_cast<double>(sizes[i]), 0);
      seen_.add(asked[i], 1);
    }
    // What is pushed goes on behind the page last asked for.
    if (wanted > 0 && cursor_ < pages_) {
      follows_ = asked[0] >= cursor_ && asked[0] - cursor_ < kNear;
      cursor_ = asked[wanted - 1];
    }
    return true;
  }

  /** A guest that goes through its memory page by page is helped by what goes before it, any other is held up. */
  uint64_t mostUnread() const { return follows_ ? kFollowed * unread_ : unread_; }

  /** Pushes the next pages that nobody has asked for, from the cursor on: whether any were. */
  bool push() {
    if (cursor_ >= pages_ || pendingEnd_ > 0) return false;
    int unread = 0;
    const uint64_t most = mostUnread();
    // A page that is asked for next waits behind all that the peer has not read. TIOCOUTQ is SIOCOUTQ.
    if (most > 0 && ioctl(link_, TIOCOUTQ, &unread) == 0 && static_cast<uint64_t>(std::max(0, unread)) > most) {
      return false;
    }
    const Mapping& memory = *region_.hold();
    return memory.whileAlive([&]() -> int64_t { return pushFrom(memory); }) > 0;
  }

  /** Neighbouring pages that are pushed. */
  struct Run {
    uint64_t first;
    uint64_t fills;
    size_t bytes;
    uint64_t pages;
  };

  int64_t pushFrom(const Mapping& memory) {
    vector_.begin(pageFlags_, fillFlags_);
    const size_t chunk = mostUnread() > 0 ? std::min<size_t>(kChunk, mostUnread()) : kChunk;
    Run runs[kMostAtOnce];
    size_t runCount = 0;
    uint64_t page = cursor_;
    while (page < pages_ && vector_.ranges() < kMostPushed && vector_.bytes() < chunk && runCount < kMostAtOnce) {
      if (!test(dirty_, page)) {
        ++page;
        continue;
      }
      uint64_t count = 1;
      while (count < kMostPushed - vector_.ranges() && page + count < pages_ && test(dirty_, page + count)) ++count;
      count = seen_.without(page, count);
      if (count == 0) {
        ++page;
        continue;
      }
      const size_t before = vector_.bytes();
      uint64_t fills = 0;
      uint64_t taken = 0;
      while (taken < count && vector_.bytes() < chunk && vector_.bytes() + kWord + pageSize_ <= out_.length) {
        const int64_t byte = vector_.add(memory, (page + taken) * pageSize_, pageSize_);
        if (byte < -1) return 0;
        if (byte >= 0) ++fills;
        ++taken;
      }
      if (taken == 0) break;
      runs[runCount++] = {page, fills, vector_.bytes() - before, taken};
      page += taken;
    }
    if (vector_.ranges() == 0) {
      cursor_ = page;
      return 0;
    }
    const int64_t left = vector_.send(link_, out_);
    full_ = left == -EAGAIN;
    if (left < 0) return 0;
    pendingEnd_ = static_cast<size_t>(left);
    for (size_t i = 0; i < runCount; ++i) {
      const Run& run = runs[i];
      log_.add(static_cast<double>(run.first), static_cast<double>(run.fills), static_cast<double>(run.bytes),
               static_cast<double>(run.pages));
      seen_.add(run.first, run.pages);
    }
    cursor_ = page;
    return 1;
  }

  bool hasRoom() const { return log_.hasRoom() && seen_.hasRoom(kMostAtOnce); }

  const int link_;
  Region& region_;
  const View<uint8_t> dirty_;
  const View<uint8_t> in_;
  const View<uint8_t> out_;
  Log log_;
  SeenPages seen_;
  uint64_t pages_ = 0, pageSize_ = 0, pageFlags_ = 0, fillFlags_ = 0, command_ = 0, nanos_ = 0, cursor_ = 0, unread_ = 0;
  RangeVector<kMostPushed> vector_;
  bool answers_ = false;
  bool sleeps_ = false;
  /** Whether the page last asked for is one that would have been pushed soon. */
  bool follows_ = false;
  bool full_ = false;
  size_t have_ = 0, pendingAt_ = 0, pendingEnd_ = 0, bytesIn_ = 0;
};

napi_value answerRequests(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* link = call.handle<Descriptor>(0, "link");
  auto* region = call.handle<Region>(1, "region");
  const View<double> plan = call.doubles(2, "plan");
  const View<uint8_t> dirty = call.bytes(3, "dirty");
  const View<uint8_t> in = call.bytes(4, "input");
  const View<uint8_t> out = call.bytes(5, "output");
  if (call.failed()) return nullptr;
  if (plan.length < Answering::kPlanWords + Log::kEntry * kMostAtOnce) return call.failRange("plan is too short");
  if (link->fd() < 0) return call.number(-EBADF);
  const int refused = region->unusable();
  if (refused != 0) return call.number(refused);
  Answering answering(plan, link->fd(), *region, dirty, in, out);
  if (!answering.readPlan(plan.data)) return call.failRange("plan is not one that can be carried out");
  answering.run(plan.data);
  return call.number(plan.data[Answering::kLogged]);
}

}  // namespace

}  // namespace uffd::exchange

namespace uffd {

void exportAnswerRequests(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "answerRequests", exchange::answerRequests);
}

}  // namespace uffd
