// Waiting for what comes next within one call. Without sleeping: gives the CPU to whoever else wants it between two looks,
// and knows when that took long. Or asleep, which costs a wake-up and no CPU.
#pragma once

#include <poll.h>
#include <sched.h>
#include <time.h>

#include <cstdint>

namespace uffd {

/** CLOCK_MONOTONIC, nanoseconds. */
inline int64_t monotonicNow() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class SpinWait {
 public:
  enum class Outcome { look, timeUp, contended };

  explicit SpinWait(int64_t nanos) : nanos_(nanos), until_(monotonicNow() + nanos) {}

  /** Something came: what follows it is waited for as long again. */
  void restart(int64_t now) { until_ = now + nanos_; }

  /** To be called after a look in vain. After `contended` one more look is due: it was given up for long. */
  Outcome rest() {
    const int64_t before = monotonicNow();
    if (before >= until_) return Outcome::timeUp;
    sched_yield();
    return monotonicNow() - before >= kLongYield ? Outcome::contended : Outcome::look;
  }

  /** The same asleep, until one of these is ready. Never contended. */
  Outcome sleep(pollfd* polled, nfds_t count) const {
    const int64_t left = until_ - monotonicNow();
    if (left <= 0) return Outcome::timeUp;
    const timespec patience{left / 1'000'000'000, left % 1'000'000'000};
    return ppoll(polled, count, &patience, nullptr) == 0 ? Outcome::timeUp : Outcome::look;
  }

 private:
  /** A yield that took this long gave the CPU to somebody who had work to do. Nanoseconds. */
  static constexpr int64_t kLongYield = 200'000;

  const int64_t nanos_;
  int64_t until_;
};

}  // namespace uffd
