#include "FaultPoller.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <iterator>
#include <utility>

#include "Descriptor.h"
#include "Failure.h"
#include "Region.h"
#include "SpinWait.h"
#include "UffdEvents.h"

namespace uffd {

namespace {

/** The longest wait that can be asked for, and in a whole turn: the event loop stands still meanwhile. Nanoseconds. */
constexpr int64_t kLongestLinger = 1'000'000;

napi_value constructFaultPoller(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  napi_value target = nullptr;
  napi_get_new_target(env, info, &target);
  if (target == nullptr) return call.failType("FaultPoller is a class: use new");
  auto* uffd = call.handle<Descriptor>(0, "uffd");
  const View<double> ring = call.doubles(1, "ring");
  if (call.failed()) return nullptr;
  if (ring.length < kEventWords) return call.failRange("ring holds less than one event of 4 numbers");
  if (uffd->fd() < 0) return call.failErrno(EBADF, "FaultPoller");
  if (!uffd->isUserfaultfd()) return call.failErrno(ENOTTY, "FaultPoller", "not a userfaultfd");
  napi_ref reference = nullptr;
  if (napi_create_reference(env, call[1], 1, &reference) != napi_ok) return call.fail();
  const size_t room = ring.length / kEventWords;
  auto poller = std::make_unique<FaultPoller>(call.addon(), reference, room, uffd->isOwn());
  const int error = poller->open(uffd->fd());
  if (error != 0) return call.failErrno(error, "uv_poll_init");
  FaultPoller* watch = poller.get();
  if (!call.addon().bind(ClassId::faultPoller, call.self(), std::move(poller))) return call.fail();
  watch->attach(call.self());
  return call.self();
}

napi_value faultPollerStart(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  napi_value callback = call.function(0, "onBurst");
  const uint64_t linger = call.absent(1) ? 0 : call.integer(1, "lingerNanos", 0, kLongestLinger);
  if (call.failed()) return nullptr;
  if (!self->isOpen()) return call.failErrno(EBADF, "start");
  if (!self->linger(static_cast<int64_t>(linger))) return call.fail();
  const int status = self->begin(LoopPoll::kReadable, callback);
  return status < 0 ? call.failErrno(-status, "uv_poll_start") : call.undefined();
}

/** Whether [start, start + length) touches the memory of a region. */
bool touches(uint64_t start, uint64_t length, const Region& region) {
  return start < region.address() + region.length() && region.address() < start + length;
}

napi_value faultPollerServe(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  const auto host = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t address = call.integer(0, "address");
  const uint64_t length = call.integer(1, "length", 1);
  auto* source = call.handle<Region>(2, "source");
  const uint64_t offset = call.integer(3, "sourceOffset");
  const uint64_t page = call.absent(4) ? host : call.integer(4, "pageSize", host);
  if (call.failed()) return nullptr;
  if (!std::has_single_bit(page)) return call.failRange("pageSize is not a power of two: " + std::to_string(page));
  if (address % page != 0 || length % page != 0) {
    return call.failRange("address or length is not a multiple of the page size " + std::to_string(page));
  }
  if (address + length > kMaxSafe) return call.failRange("the range ends beyond the safe integers");
  if (offset > source->length() || length > source->length() - offset) {
    return call.failRange("source holds " + std::to_string(source->length()) + " bytes, not " + std::to_string(length) +
                          " at " + std::to_string(offset));
  }
  if (!self->isOpen()) return call.failErrno(EBADF, "serve");
  const int unusable = source->unusable();
  if (unusable < 0) return call.failErrno(-unusable, "serve");
  // A page that is brought from memory that waits for it would be waited for by this very thread, for ever.
  if (self->isOwn() && touches(address, length, *source)) {
    return call.failRange("source is the memory that is to be served");
  }
  Hold hold = SharedTable::process().again(source->hold());
  if (!self->served().add({address, address + length, std::move(hold), offset, page})) {
    return call.failRange("the range overlaps with one that is served");
  }
  return call.undefined();
}

napi_value faultPollerUnserve(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  const uint64_t address = call.integer(0, "address");
  const uint64_t length = call.integer(1, "length");
  if (call.failed()) return nullptr;
  self->served().remove(address, address + length);
  return call.undefined();
}

napi_value faultPollerServed(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  return call.failed() ? nullptr : call.number(static_cast<double>(self->served().pages()));
}

}  // namespace

bool FaultPoller::linger(int64_t nanos) {
  lingerNanos_ = nanos;
  if (nanos == 0 || lingering_ != nullptr) return true;
  napi_value function = nullptr;
  return napi_create_function(env(), "lingering", NAPI_AUTO_LENGTH, lingerFor, addon_, &function) == napi_ok &&
         napi_create_reference(env(), function, 1, &lingering_) == napi_ok;
}

int64_t FaultPoller::fillRing() {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env(), &scope) != napi_ok) return -ECANCELED;
  napi_value array = nullptr;
  napi_get_reference_value(env(), ring_, &array);
  const int64_t count = fill(array);
  napi_close_handle_scope(env(), scope);
  return count;
}

View<double> FaultPoller::roomOf(napi_value array) const {
  View<double> ring;
  void* data = nullptr;
  // Asked every time: the caller may have transferred the buffer since, which leaves a length of 0. What kind of array
  // it is was seen when it was given, and is not asked again: that is the dear part.
  if (napi_get_typedarray_info(env(), array, nullptr, &ring.length, &data, nullptr, nullptr) == napi_ok) {
    ring.data = static_cast<double*>(data);
  }
  return ring;
}

int64_t FaultPoller::fill(napi_value array) {
  if (!left_.empty()) return deliver(array);
  // SAFETY: no JavaScript runs between here and the last write.
  const View<double> ring = roomOf(array);
  return ring.length < kEventWords ? -ENOBUFS : readEvents(*addon_, fd(), ring);
}

int64_t FaultPoller::deliver(napi_value array) {
  // SAFETY: no JavaScript runs between here and the last write.
  const View<double> ring = roomOf(array);
  const size_t count = left_.size();
  const bool fits = ring.length >= count * kEventWords;
  for (size_t i = 0; i < count; ++i) {
    const abi::Message& message = left_[i];
    if (fits) {
      decodeEvent(*addon_, message, ring.data + i * kEventWords);
    } else if (message.event == abi::kPagefault) {
      // Nobody hears of it here: whoever waits touches again, and whoever reads next does.
      abi::Range waiting{message.pagefault.address & ~static_cast<uint64_t>(sysconf(_SC_PAGESIZE) - 1),
                         static_cast<uint64_t>(sysconf(_SC_PAGESIZE))};
      ioctl(fd(), abi::kWake, &waiting);
    } else if (message.event == abi::kFork) {
      close(static_cast<int>(message.fork.fd));
    }
  }
  left_.clear();
  return fits ? static_cast<int64_t>(count) : -ENOBUFS;
}

int64_t FaultPoller::serveBatch() {
  abi::Message batch[kBatch];
  // No more than the ring has room for, should all of it be left over.
  const ssize_t bytes = read(fd(), batch, std::min(kBatch, room_) * sizeof *batch);
  if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
  const size_t count = static_cast<size_t>(bytes) / sizeof *batch;
  // The kernel hands out faults before events that came earlier: beside a removal, a fault may be of a removed page.
  const bool faults = std::all_of(batch, batch + count, [](const abi::Message& each) { return each.event == abi::kPagefault; });
  for (size_t i = 0; i < count; ++i) {
    if (!faults || !served_.answer(fd(), batch[i])) left_.push_back(batch[i]);
  }
  return static_cast<int64_t>(left_.size());
}

int64_t FaultPoller::serve() {
  const int64_t end = lingerNanos_ == 0 ? 0 : monotonicNow() + kLongestLinger;
  while (true) {
    const int64_t count = serveBatch();
    if (count != 0 || lingerNanos_ == 0 || monotonicNow() >= end || !waitNext()) return count;
  }
}

bool FaultPoller::waitNext() const {
  pollfd polled{fd(), POLLIN, 0};
  const timespec patience{0, lingerNanos_};
  // Sleeps, as the loop does: whoever was just answered runs now, and who else wants the CPU.
  return ppoll(&polled, 1, &patience, nullptr) > 0;
}

int64_t FaultPoller::nextBurst(napi_value array) {
  if (!waitNext()) return 0;
  if (!served_.empty()) {
    const int64_t count = serve();
    if (count <= 0) return count;
  }
  return fill(array);
}

void FaultPoller::ready(int status, int) {
  int64_t count = status;
  if (status >= 0) {
    count = served_.empty() ? 1 : serve();
    if (count > 0) count = fillRing();
  }
  if (count == 0) return;  // Answered, or another reader of the same userfaultfd was quicker.
  // An error would come again at once, for ever: the owner decides whether to go on.
  if (count < 0) pause();
  if (count < 0 || lingerNanos_ == 0) {
    const double number = static_cast<double>(count);
    call(1, &number);
  } else {
    pending_ = count;
    callInside(lingering_);
  }
}

napi_value FaultPoller::lingerFor(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<FaultPoller>();
  if (!call.failed()) self->burstsOfATurn(call.self());
  return nullptr;
}

void FaultPoller::burstsOfATurn(napi_value self) {
  int64_t count = std::exchange(pending_, 0);
  const int64_t end = monotonicNow() + kLongestLinger;
  napi_value array = nullptr;
  if (napi_get_reference_value(env(), ring_, &array) != napi_ok) return;
  while (count != 0) {
    if (count < 0) pause();
    // Closed, paused, started anew, or thrown: what follows is the loop's. `this` lives on, its object is the receiver.
    if (!callOnce(self, count) || !isOpen() || !running() || lingerNanos_ == 0 || monotonicNow() >= end) return;
    count = nextBurst(array);
  }
}

void FaultPoller::shut() {
  Watch::shut();
  served_.clear();
  if (addon_ != nullptr) {
    if (ring_ != nullptr) napi_delete_reference(env(), ring_);
    if (lingering_ != nullptr) napi_delete_reference(env(), lingering_);
  }
  ring_ = lingering_ = nullptr;
}

void FaultPoller::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  using Methods = WatchMethods<FaultPoller>;
  const napi_property_descriptor properties[] = {
      {"start", nullptr, faultPollerStart, nullptr, nullptr, nullptr, napi_default_method, data},
      {"serve", nullptr, faultPollerServe, nullptr, nullptr, nullptr, napi_default_method, data},
      {"unserve", nullptr, faultPollerUnserve, nullptr, nullptr, nullptr, napi_default_method, data},
      {"served", nullptr, faultPollerServed, nullptr, nullptr, nullptr, napi_default_method, data},
      {"pause", nullptr, Methods::pause, nullptr, nullptr, nullptr, napi_default_method, data},
      {"resume", nullptr, Methods::resume, nullptr, nullptr, nullptr, napi_default_method, data},
      {"ref", nullptr, Methods::ref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"unref", nullptr, Methods::unref, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, Methods::close, nullptr, nullptr, nullptr, napi_default_method, data}};
  addon.define(exports, kClass, kName, constructFaultPoller, std::size(properties), properties);
}

}  // namespace uffd
