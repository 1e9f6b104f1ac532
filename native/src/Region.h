// One environment's holder of a Mapping.
#pragma once

#include "Addon.h"
#include "Arguments.h"
#include "SharedTable.h"

namespace uffd {

class Region final : public Handle {
 public:
  static constexpr ClassId kClass = ClassId::region;
  static constexpr const char* kName = "Region";

  Region(Addon& addon, Hold hold);
  ~Region() override { shut(); }
  void shut() override;

  bool closed() const { return !hold_; }
  /** Also after close: plain numbers, not used as pointers. */
  uintptr_t address() const { return address_; }
  size_t length() const { return length_; }
  size_t pageSize() const { return pageSize_; }
  const Hold& hold() const { return hold_; }
  /** Why it cannot be used, as a negative errno: -EBADF closed, -ESTALE the owner of the memory is gone. Else 0. */
  int unusable();
  /** The ArrayBuffer over the mapping, the same one while it is alive; null with a pending exception. */
  napi_value buffer();

  /** A new JS object for a hold. Null with a pending exception. */
  static napi_value wrap(Addon& addon, Hold hold);
  static void define(Addon& addon, napi_value exports);

 private:
  napi_value externalBuffer();

  Hold hold_;
  uintptr_t address_;
  size_t length_;
  size_t pageSize_;
  /** Weak. */
  napi_ref buffer_ = nullptr;
};

}  // namespace uffd
