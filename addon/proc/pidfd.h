#pragma once

#include <napi.h>

namespace cedana {

void InitPidfd(Napi::Env env, Napi::Object exports);

}  // namespace cedana
