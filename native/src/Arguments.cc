#include "Arguments.h"

#include <cmath>
#include <cstdio>

#include "Failure.h"

namespace uffd {

namespace {

std::string written(double number) {
  char text[32];
  snprintf(text, sizeof text, "%.17g", number);
  return text;
}

}  // namespace

Arguments::Arguments(napi_env env, napi_callback_info info) : env_(env) {
  void* data = nullptr;
  napi_get_cb_info(env, info, &count_, values_, &self_, &data);
  addon_ = static_cast<Addon*>(data);
}

napi_value Arguments::failType(const std::string& message) {
  if (!failed_) throwType(env_, message);
  return fail();
}

napi_value Arguments::failRange(const std::string& message) {
  if (!failed_) throwRange(env_, message);
  return fail();
}

napi_value Arguments::failErrno(int error, const char* syscall, const std::string& detail) {
  if (!failed_) throwErrno(env_, error, syscall, detail);
  return fail();
}

Handle* Arguments::require(ClassId id, napi_value value, const char* name, const char* className) {
  if (failed_) return nullptr;
  Handle* handle = addon_->unwrap(id, value);
  if (handle == nullptr) failType(std::string(name) + " is not a " + className);
  return handle;
}

bool Arguments::absent(size_t index) const {
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, values_[index], &type);
  return type == napi_undefined;
}

uint64_t Arguments::integerOf(napi_value value, const char* name, uint64_t least, uint64_t most) {
  if (failed_) return least;
  double number = 0;
  if (napi_get_value_double(env_, value, &number) != napi_ok) {
    failType(std::string(name) + " is not a number");
    return least;
  }
  // Both bounds are exact as doubles: neither is above 2^53 - 1. NaN is within none, and what is within is converted.
  const bool within = number >= static_cast<double>(least) && number <= static_cast<double>(most);
  const int64_t integer = within ? static_cast<int64_t>(number) : 0;
  if (within && static_cast<double>(integer) == number) return static_cast<uint64_t>(integer);
  if (!std::isfinite(number) || std::trunc(number) != number) {
    failRange(std::string(name) + " is not an integer: " + written(number));
  } else {
    failRange(std::string(name) + " is not between " + std::to_string(least) + " and " + std::to_string(most) + ": " +
              written(number));
  }
  return least;
}

uint64_t Arguments::integer(size_t index, const char* name, uint64_t least, uint64_t most) {
  return integerOf(values_[index], name, least, most);
}

bool Arguments::booleanOf(napi_value value, const char* name) {
  if (failed_) return false;
  bool result = false;
  if (napi_get_value_bool(env_, value, &result) != napi_ok) failType(std::string(name) + " is not a boolean");
  return result;
}

bool Arguments::boolean(size_t index, const char* name) { return booleanOf(values_[index], name); }

uint64_t Arguments::bigint(size_t index, const char* name) {
  if (failed_) return 0;
  uint64_t result = 0;
  bool exact = false;
  if (napi_get_value_bigint_uint64(env_, values_[index], &result, &exact) != napi_ok) {
    failType(std::string(name) + " is not a bigint");
  } else if (!exact) {
    failRange(std::string(name) + " does not fit 64 unsigned bits");
  }
  return result;
}

std::string Arguments::textOf(napi_value value, const char* name, size_t most) {
  if (failed_) return {};
  size_t length = 0;
  if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) {
    failType(std::string(name) + " is not a string");
    return {};
  }
  if (length > most) {
    failRange(std::string(name) + " is longer than " + std::to_string(most) + " bytes");
    return {};
  }
  std::string result(length + 1, '\0');
  napi_get_value_string_utf8(env_, value, result.data(), length + 1, &length);
  result.resize(length);
  // A C string ends at the first NUL: the kernel would act on another name than the one given.
  if (result.find('\0') != std::string::npos) failRange(std::string(name) + " contains a NUL");
  return result;
}

std::string Arguments::text(size_t index, const char* name, size_t most) { return textOf(values_[index], name, most); }

napi_value Arguments::function(size_t index, const char* name) {
  if (failed_) return nullptr;
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, values_[index], &type);
  if (type != napi_function) return failType(std::string(name) + " is not a function");
  return values_[index];
}

View<uint8_t> Arguments::bytes(size_t index, const char* name) {
  View<uint8_t> view;
  if (failed_) return view;
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  if (napi_get_typedarray_info(env_, values_[index], &type, &view.length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    failType(std::string(name) + " is not a Uint8Array");
    return {};
  }
  // SAFETY: V8 gives length 0 for a detached buffer, and every use is checked against this length.
  view.data = static_cast<uint8_t*>(data);
  return view;
}

View<double> Arguments::doubles(size_t index, const char* name) {
  View<double> view;
  if (failed_) return view;
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  if (napi_get_typedarray_info(env_, values_[index], &type, &view.length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array) {
    failType(std::string(name) + " is not a Float64Array");
    return {};
  }
  // SAFETY: as in bytes.
  view.data = static_cast<double*>(data);
  return view;
}

uint8_t* Arguments::part(View<uint8_t> view, uint64_t offset, uint64_t length, const char* name) {
  if (failed_) return nullptr;
  if (offset > view.length || length > view.length - offset) {
    failRange(std::string(name) + " holds " + std::to_string(view.length) + " bytes, not " + std::to_string(length) +
              " at " + std::to_string(offset));
    return nullptr;
  }
  return view.data == nullptr ? nullptr : view.data + offset;
}

bool Arguments::object(size_t index, const char* name) {
  if (failed_ || absent(index)) return false;
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, values_[index], &type);
  if (type == napi_object) return true;
  failType(std::string(name) + " is not an object");
  return false;
}

napi_value Arguments::property(size_t index, const char* key) {
  if (failed_) return nullptr;
  napi_value value = nullptr;
  if (napi_get_named_property(env_, values_[index], key, &value) != napi_ok) return fail();
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, value, &type);
  return type == napi_undefined ? nullptr : value;
}

std::optional<uint64_t> Arguments::integerOption(size_t index, const char* key, uint64_t least, uint64_t most) {
  napi_value value = property(index, key);
  if (value == nullptr) return std::nullopt;
  return integerOf(value, key, least, most);
}

std::optional<bool> Arguments::booleanOption(size_t index, const char* key) {
  napi_value value = property(index, key);
  if (value == nullptr) return std::nullopt;
  return booleanOf(value, key);
}

std::optional<std::string> Arguments::textOption(size_t index, const char* key) {
  napi_value value = property(index, key);
  if (value == nullptr) return std::nullopt;
  return textOf(value, key, 65536);
}

napi_value Arguments::number(double value) const {
  napi_value result = nullptr;
  napi_create_double(env_, value, &result);
  return result;
}

napi_value Arguments::undefined() const {
  napi_value result = nullptr;
  napi_get_undefined(env_, &result);
  return result;
}

napi_value Arguments::null() const {
  napi_value result = nullptr;
  napi_get_null(env_, &result);
  return result;
}

napi_value Arguments::boolean(bool value) const {
  napi_value result = nullptr;
  napi_get_boolean(env_, value, &result);
  return result;
}

napi_value Arguments::string(const std::string& value) const {
  napi_value result = nullptr;
  napi_create_string_utf8(env_, value.data(), value.size(), &result);
  return result;
}

bool exactInteger(double number, uint64_t& integer) {
  // NaN is within no bounds; what is within them can be converted.
  if (!(number >= 0 && number <= static_cast<double>(kMaxSafe))) return false;
  const auto whole = static_cast<int64_t>(number);
  integer = static_cast<uint64_t>(whole);
  return static_cast<double>(whole) == number;
}

void put(napi_env env, napi_value object, const char* key, napi_value value) {
  napi_set_named_property(env, object, key, value);
}

}  // namespace uffd
