// Events of a userfaultfd in bursts: one entry into JavaScript for all that is pending, through an array that the
// caller owns. Hot: nothing is allocated per event.
//
// After a burst the next one may be waited for in the same turn of the event loop. A thread that was answered goes on
// only when this one sleeps, where both share a CPU: the way back through Node's loop is part of what it waits for.
//
// Ranges that are served are answered here, without JavaScript; it hears of what is left.
#pragma once

#include <vector>

#include "ServedRanges.h"
#include "UffdAbi.h"
#include "Watch.h"

namespace uffd {

class FaultPoller final : public Watch {
 public:
  static constexpr ClassId kClass = ClassId::faultPoller;
  static constexpr const char* kName = "FaultPoller";

  FaultPoller(Addon& addon, napi_ref ring, size_t room, bool own) : Watch(addon), own_(own), room_(room), ring_(ring) {}
  ~FaultPoller() override { shut(); }
  void shut() override;
  static void define(Addon& addon, napi_value exports);

  /** How long a next burst is waited for after each; 0: not at all. False with a pending exception. */
  bool linger(int64_t nanos);
  /** Whether the userfaultfd's addresses are of this process. */
  bool isOwn() const { return own_; }
  ServedRanges& served() { return served_; }

 private:
  void ready(int status, int events) override;
  static napi_value lingerFor(napi_env env, napi_callback_info info);
  void burstsOfATurn(napi_value self);
  /** What comes before the time is over: a number of events, 0 or -errno. */
  int64_t nextBurst(napi_value array);
  bool waitNext() const;
  int64_t fillRing();
  int64_t fill(napi_value array);
  View<double> roomOf(napi_value array) const;
  /** Answers what it can, as long as it lingers: how many messages are left over, 0 or -errno. */
  int64_t serve();
  int64_t serveBatch();
  /** What is left over, into the ring: its number or -errno. */
  int64_t deliver(napi_value array);

  /** Messages of one read(2). */
  static constexpr size_t kBatch = 64;

  const bool own_;
  /** Events that the ring held when it was given. */
  const size_t room_;
  ServedRanges served_;
  /** Messages that were read, and are the caller's. */
  std::vector<abi::Message> left_;
  napi_ref ring_;
  /** The function that is entered once for all bursts of a turn: an entry from the loop costs more than all else. */
  napi_ref lingering_ = nullptr;
  int64_t lingerNanos_ = 0;
  /** Events read that the function shall begin with. */
  int64_t pending_ = 0;
};

}  // namespace uffd
