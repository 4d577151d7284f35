#pragma once

#include <napi.h>

namespace cedana {

void InitScan(Napi::Env env, Napi::Object exports);

}  // namespace cedana
