#pragma once

#include <criu/rpc.pb-c.h>
#include <napi.h>

#include <memory>

#include "base/result.h"

namespace cedana {

struct FreeCriuOpts {
  void operator()(CriuOpts* opts) const { criu_opts__free_unpacked(opts, nullptr); }
};
using CriuOptsPtr = std::unique_ptr<CriuOpts, FreeCriuOpts>;

// Members of a JavaScript object → the fields of criu_opts with the same names, by CRIU's own
// descriptor, so that no option has to be listed here. A member that is null or undefined is left
// out. An unknown name, a wrong type or a missing required field is EINVAL, the path to it in `op`.
Result<CriuOptsPtr> CriuOptsFrom(const Napi::Object& object);

// The fields of criu_opts as CriuField[].
Napi::Value CriuOptionsToJs(Napi::Env env);

}  // namespace cedana
