#pragma once

#include <napi.h>

namespace cedana {

void InitSession(Napi::Env env, Napi::Object exports);

}  // namespace cedana
