#pragma once

#include <napi.h>

namespace cedana {

void InitConnector(Napi::Env env, Napi::Object exports);

}  // namespace cedana
