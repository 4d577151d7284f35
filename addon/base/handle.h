#pragma once

#include <napi.h>

#include <memory>
#include <utility>

namespace cedana {

// An opaque JavaScript value that shares ownership of a T with the threads that work on it; the
// garbage collector gives up its share.
template <typename T>
Napi::Value MakeHandle(Napi::Env env, std::shared_ptr<T> owned) {
  auto share = std::make_unique<std::shared_ptr<T>>(std::move(owned));
  const auto external = Napi::External<std::shared_ptr<T>>::New(
      env, share.get(), [](Napi::Env, std::shared_ptr<T>* ours) { delete ours; });
  static_cast<void>(share.release());
  return external;
}

template <typename T>
std::shared_ptr<T> HandleOf(const Napi::Value& value) {
  return *value.As<Napi::External<std::shared_ptr<T>>>().Data();
}

}  // namespace cedana
