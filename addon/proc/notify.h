#pragma once

#include <napi.h>

namespace cedana {

void InitNotify(Napi::Env env, Napi::Object exports);

}  // namespace cedana
