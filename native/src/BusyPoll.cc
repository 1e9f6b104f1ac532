// Waiting without sleeping, for a short time: what dominates the answer to a page fault is being woken up. It yields
// the CPU between two looks, so that whoever else wants it gets it, and says when that was for long.

#include <poll.h>

#include <cerrno>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "SpinWait.h"

namespace uffd {

namespace {

constexpr double kFirstReady = 1, kSecondReady = 2, kContended = 4;
/** The longest wait that can be asked for: the event loop stands still meanwhile. Nanoseconds. */
constexpr uint64_t kLongest = 10'000'000;

short pollEvents(uint64_t events) {
  return static_cast<short>(((events & 1) != 0 ? POLLIN : 0) | ((events & 2) != 0 ? POLLOUT : 0));
}

napi_value busyPoll(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* first = call.handle<Descriptor>(0, "first");
  const uint64_t firstEvents = call.integer(1, "firstEvents", 0, 3);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, call[2], &type);
  auto* second = type == napi_null ? nullptr : call.handle<Descriptor>(2, "second");
  const uint64_t secondEvents = call.integer(3, "secondEvents", 0, 3);
  const uint64_t nanos = call.integer(4, "nanos", 0, kLongest);
  if (call.failed()) return nullptr;
  if (first->fd() < 0 || (second != nullptr && second->fd() < 0)) return call.number(-EBADF);
  pollfd polled[2] = {{first->fd(), pollEvents(firstEvents), 0},
                      {second == nullptr ? -1 : second->fd(), pollEvents(secondEvents), 0}};
  SpinWait wait(static_cast<int64_t>(nanos));
  double result = 0;
  const auto look = [&] {
    if (poll(polled, 2, 0) <= 0) return false;
    if (polled[0].revents != 0) result += kFirstReady;
    if (polled[1].revents != 0) result += kSecondReady;
    return true;
  };
  while (!look()) {
    const SpinWait::Outcome outcome = wait.rest();
    if (outcome == SpinWait::Outcome::look) continue;
    if (outcome == SpinWait::Outcome::contended) {
      result += kContended;
      look();
    }
    break;
  }
  return call.number(result);
}

}  // namespace

void exportBusyPoll(Addon& addon, napi_value exports) { exportFunction(addon, exports, "busyPoll", busyPoll); }

}  // namespace uffd
