// The static functions of Region: where memory comes from.
#pragma once

#include <node_api.h>

namespace uffd::source {

napi_value anonymous(napi_env env, napi_callback_info info);
napi_value memfd(napi_env env, napi_callback_info info);
napi_value map(napi_env env, napi_callback_info info);
napi_value ofBuffer(napi_env env, napi_callback_info info);
napi_value adopt(napi_env env, napi_callback_info info);

}  // namespace uffd::source
