#pragma once

#include <napi.h>

#include "base/result.h"

namespace cedana {

// Error {op, errno, code}; index.ts turns it into a NativeError.
Napi::Error ToJsError(Napi::Env env, const Errno& error);

// Throws it when the binding returns; the value is what the binding returns meanwhile.
Napi::Value Throw(Napi::Env env, const Errno& error);

}  // namespace cedana
