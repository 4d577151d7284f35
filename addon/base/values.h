#pragma once

#include <napi.h>

#include <string>
#include <vector>

namespace cedana {

// Plain data from and to JavaScript. Arguments arrive validated.

inline int Int(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }
inline unsigned Uint(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }
inline std::string Text(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }

// Each element of an array through `convert`.
template <typename T, typename Convert>
std::vector<T> List(const Napi::Value& value, Convert convert) {
  const auto array = value.As<Napi::Array>();
  std::vector<T> out;
  out.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++)
    out.push_back(static_cast<T>(convert(array.Get(i))));
  return out;
}
inline std::vector<std::string> Texts(const Napi::Value& value) {
  return List<std::string>(value, Text);
}

// An array made of each element through `convert(element)`.
template <typename Elements, typename Convert>
Napi::Array ArrayOf(Napi::Env env, const Elements& elements, Convert convert) {
  const auto array = Napi::Array::New(env, elements.size());
  uint32_t i = 0;
  for (const auto& element : elements) array.Set(i++, convert(element));
  return array;
}

}  // namespace cedana
