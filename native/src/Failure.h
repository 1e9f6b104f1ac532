// Typed errors of the addon. Set-up calls throw a SystemError (code, errno, syscall), wrong arguments a TypeError or a
// RangeError with Node's own codes; hot calls return a negative errno and never come here. No C++ exception exists:
// every function leaves a pending JS exception and returns to its caller, who returns to JS.
#pragma once

#include <node_api.h>

#include <string>

namespace uffd {

/** Symbolic name ("EINVAL"), or null when the number is unknown. */
const char* errnoName(int error);

/** A SystemError: `error` is a positive errno; `detail` is appended to the message when it is not empty. */
void throwErrno(napi_env env, int error, const char* syscall, const std::string& detail = {});
void throwType(napi_env env, const std::string& message);
void throwRange(napi_env env, const std::string& message);

}  // namespace uffd
