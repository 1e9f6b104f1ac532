// The arguments of one call, checked. The first wrong one throws its TypeError or RangeError and makes the call
// `failed()`; the readers after it return harmless values, so a binding reads all its arguments and asks once.
//
// Order matters: options and arrays may run JavaScript (getters), which can close handles and detach buffers. Read
// them before handles' numbers are used and before `bytes`, whose pointer is valid until JavaScript runs again.
#pragma once

#include <node_api.h>

#include <cstdint>
#include <optional>
#include <string>

#include "Addon.h"

namespace uffd {

/** Number.MAX_SAFE_INTEGER: addresses and lengths are exact numbers. */
constexpr uint64_t kMaxSafe = 9007199254740991;

/** The memory of a typed array. SAFETY: pinned by the caller's handle scope, valid until JavaScript runs. */
template <class T>
struct View {
  T* data = nullptr;
  size_t length = 0;
};

class Arguments {
 public:
  static constexpr size_t kMost = 8;

  Arguments(napi_env env, napi_callback_info info);

  napi_env env() const { return env_; }
  Addon& addon() const { return *addon_; }
  napi_value self() const { return self_; }
  size_t count() const { return count_; }
  napi_value operator[](size_t index) const { return values_[index]; }
  bool failed() const { return failed_; }
  /** Marks the call failed; a JS exception is pending already. Always null, to be returned to JS. */
  napi_value fail() {
    failed_ = true;
    return nullptr;
  }
  napi_value failType(const std::string& message);
  napi_value failRange(const std::string& message);
  napi_value failErrno(int error, const char* syscall, const std::string& detail = {});

  /** The handle that `this` owns. */
  template <class T>
  T* owner() {
    return static_cast<T*>(require(T::kClass, self_, "this", T::kName));
  }
  template <class T>
  T* handle(size_t index, const char* name) {
    return static_cast<T*>(require(T::kClass, values_[index], name, T::kName));
  }

  bool absent(size_t index) const;
  uint64_t integer(size_t index, const char* name, uint64_t least = 0, uint64_t most = kMaxSafe);
  bool boolean(size_t index, const char* name);
  uint64_t bigint(size_t index, const char* name);
  /** UTF-8 without NUL, at most `most` bytes. */
  std::string text(size_t index, const char* name, size_t most = 65536);
  napi_value function(size_t index, const char* name);
  View<uint8_t> bytes(size_t index, const char* name);
  View<double> doubles(size_t index, const char* name);
  /** `length` bytes at `offset` of `view`; a RangeError when it holds less. */
  uint8_t* part(View<uint8_t> view, uint64_t offset, uint64_t length, const char* name);

  /** An options object: undefined is none, anything else but an object a TypeError. */
  bool object(size_t index, const char* name);
  /** A property of the object at `index`; null when it is undefined. May run JavaScript. */
  napi_value property(size_t index, const char* key);
  std::optional<uint64_t> integerOption(size_t index, const char* key, uint64_t least, uint64_t most);
  std::optional<bool> booleanOption(size_t index, const char* key);
  std::optional<std::string> textOption(size_t index, const char* key);

  /** The same checks for a value from elsewhere (an option, an array's element). */
  uint64_t integerOf(napi_value value, const char* name, uint64_t least, uint64_t most);
  std::string textOf(napi_value value, const char* name, size_t most);
  bool booleanOf(napi_value value, const char* name);
  Handle* require(ClassId id, napi_value value, const char* name, const char* className);

  // Results.
  napi_value number(double value) const;
  napi_value undefined() const;
  napi_value null() const;
  napi_value boolean(bool value) const;
  napi_value string(const std::string& value) const;

 private:
  napi_env env_;
  Addon* addon_ = nullptr;
  napi_value self_ = nullptr;
  size_t count_ = kMost;
  napi_value values_[kMost] = {};
  bool failed_ = false;
};

/** A number of an array as a safe integer of at least 0; false when it is none. Hot: nothing is thrown. */
bool exactInteger(double number, uint64_t& integer);

/** Sets a property of a plain result object. */
void put(napi_env env, napi_value object, const char* key, napi_value value);

}  // namespace uffd
