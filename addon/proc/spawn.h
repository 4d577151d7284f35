#pragma once

#include <napi.h>

namespace cedana {

void InitSpawn(Napi::Env env, Napi::Object exports);

}  // namespace cedana
