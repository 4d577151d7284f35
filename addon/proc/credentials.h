#pragma once

#include <napi.h>

namespace cedana {

void InitCredentials(Napi::Env env, Napi::Object exports);

}  // namespace cedana
