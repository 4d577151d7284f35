#pragma once

#include <napi.h>

namespace cedana {

void InitCuda(Napi::Env env, Napi::Object exports);

}  // namespace cedana
