// Readiness of any descriptor in the event loop.
#pragma once

#include "Watch.h"

namespace uffd {

class Poller final : public Watch {
 public:
  static constexpr ClassId kClass = ClassId::poller;
  static constexpr const char* kName = "Poller";

  using Watch::Watch;
  ~Poller() override { shut(); }
  static void define(Addon& addon, napi_value exports);

 private:
  void ready(int status, int events) override;
};

}  // namespace uffd
