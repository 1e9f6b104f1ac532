// Events of a userfaultfd in bursts: one entry into JavaScript for all that is pending, through an array that the
// caller owns. Hot: nothing is allocated per event.
#pragma once

#include "Watch.h"

namespace uffd {

class FaultPoller final : public Watch {
 public:
  static constexpr ClassId kClass = ClassId::faultPoller;
  static constexpr const char* kName = "FaultPoller";

  FaultPoller(Addon& addon, napi_ref ring) : Watch(addon), ring_(ring) {}
  ~FaultPoller() override { shut(); }
  void shut() override;
  static void define(Addon& addon, napi_value exports);

 private:
  void ready(int status, int events) override;
  int64_t fillRing();

  napi_ref ring_;
};

}  // namespace uffd
